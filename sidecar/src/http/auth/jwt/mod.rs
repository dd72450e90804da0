//! JSON Web Tokens: a token -> known a moment ago, or verified -> its claims -> let in or not.
//!
//! Nothing of a token is believed before its signature was verified by a key of the issuer's set, but for the name of that
//! key and the algorithm, which must be one of those that the listener allows. No token is ever logged or kept.

mod cache;
mod claims;
mod crypto;
mod figures;
mod key_set;
mod source;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::{
    rc::Rc,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub(in crate::http) use cache::Tokens;
pub(super) use claims::Claims;
use crds::config::{ClaimHeader, Jwt, JwtAlgorithm};
pub(in crate::http) use figures::FAMILIES;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header, errors::ErrorKind};
pub use source::{JwksError, KeySets};

use self::{
    cache::{Known, digest},
    key_set::KeySet,
    source::Source,
};
use super::rules::Rules;
use crate::http::message::RequestHead;

/// Longest token that is looked at.
const LONGEST: usize = 16 * 1024;

const ALL: [JwtAlgorithm; 9] = [
    JwtAlgorithm::RS256,
    JwtAlgorithm::RS384,
    JwtAlgorithm::RS512,
    JwtAlgorithm::PS256,
    JwtAlgorithm::PS384,
    JwtAlgorithm::PS512,
    JwtAlgorithm::ES256,
    JwtAlgorithm::ES384,
    JwtAlgorithm::EdDSA,
];

/// Verifies the tokens of one issuer.
#[derive(Debug)]
pub(super) struct Verifier {
    source: Arc<Source>,
    header: String,
    leeway: u64,
    claim_headers: Vec<ClaimHeader>,
    /// By the one algorithm that each is for.
    validations: Vec<(Algorithm, Validation)>,
}

/// Why a token is not good. The words are for the client: they say nothing of the token that it does not say itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadToken {
    #[error("it is no token")]
    Malformed,
    #[error("it was sent twice")]
    Twice,
    #[error("its algorithm is not allowed")]
    Algorithm,
    #[error("its key is not one of the issuer's")]
    UnknownKey,
    #[error("its signature is not that of its key")]
    Signature,
    #[error("it has expired")]
    Expired,
    #[error("it is not good yet")]
    Immature,
    #[error("its issuer is another")]
    Issuer,
    #[error("it is meant for another audience")]
    Audience,
    #[error("it lacks one of the claims exp, iss and aud, or has one that cannot be read")]
    Claims,
}

/// What comes of a token.
#[derive(Debug)]
pub(super) enum Told {
    /// The request has none.
    Nothing,
    Bad(BadToken),
    /// The issuer's keys were never there so far.
    NoKeys,
    /// No rule lets the client in.
    Forbidden,
    /// Lines for the backend.
    Admitted(Rc<[u8]>),
}

impl Verifier {
    pub(super) fn new(settings: &Jwt, sets: &KeySets) -> Result<Self, JwksError> {
        crypto::install();
        let algorithms = if settings.algorithms.is_empty() { &ALL[..] } else { &settings.algorithms };
        let leeway = settings.leeway.as_std().as_secs();
        let validation = |algorithm: &JwtAlgorithm| {
            let algorithm = algorithm_of(*algorithm);
            let mut validation = Validation::new(algorithm);
            (validation.leeway, validation.validate_nbf) = (leeway, true);
            validation.set_issuer(&[&settings.issuer]);
            // What is required must be readable too: a claim that is not is otherwise passed over.
            let mut required = vec!["exp", "iss"];
            if !settings.audiences.is_empty() {
                validation.set_audience(&settings.audiences);
                required.push("aud");
            }
            validation.set_required_spec_claims(&required);
            (algorithm, validation)
        };
        Ok(Self {
            source: sets.load(&settings.jwks)?,
            header: settings.header.clone(),
            leeway,
            claim_headers: settings.claim_headers.clone(),
            validations: algorithms.iter().map(validation).collect(),
        })
    }

    pub(super) fn check(&self, request: &RequestHead, rules: &Rules, tokens: &mut Tokens) -> Told {
        let mut values = request.fields.all(&self.header);
        let Some(token) = values.next().and_then(|value| token(&self.header, value)) else {
            return Told::Nothing;
        };
        if values.next().is_some() {
            return Told::Bad(BadToken::Twice);
        }
        if token.len() > LONGEST {
            return Told::Bad(BadToken::Malformed);
        }
        let Some(keys) = self.source.current() else { return Told::NoKeys };
        let (digest, now) = (digest(token), now());
        if let Some(known) = tokens.find(&keys, &digest, now) {
            return known.lines.map_or(Told::Forbidden, Told::Admitted);
        }
        match self.verify(token, &keys) {
            Ok(claims) => {
                let allowed = rules.allow(&claims.subject().into_iter().collect::<Vec<_>>(), Some(&claims));
                let lines = allowed.then(|| Rc::from(claims.lines(&self.claim_headers)));
                let until = claims.expires().saturating_add(self.leeway);
                tokens.insert(digest, Known { until, lines: lines.clone() });
                lines.map_or(Told::Forbidden, Told::Admitted)
            }
            Err(bad) => Told::Bad(bad),
        }
    }

    fn verify(&self, token: &[u8], keys: &KeySet) -> Result<Claims, BadToken> {
        let header = decode_header(token).map_err(|error| bad(error.kind()))?;
        // Whoever marks something as critical wants it understood; none of that is.
        if header.crit.is_some() {
            return Err(BadToken::Malformed);
        }
        let validation = self.validations.iter().find(|(algorithm, _)| *algorithm == header.alg);
        let (_, validation) = validation.ok_or(BadToken::Algorithm)?;
        let id = header.kid.as_deref();
        if id.is_some_and(|id| !keys.has(id)) {
            self.source.want();
            return Err(BadToken::UnknownKey);
        }
        let mut result = Err(BadToken::UnknownKey);
        for key in keys.candidates(id, header.alg) {
            result = decode(token, key, validation).map_err(|error| bad(error.kind()));
            if !matches!(result, Err(BadToken::Signature)) {
                break;
            }
        }
        result.map(|token| Claims::new(token.claims))
    }
}

/// The token in a header's value. In Authorization it is one only after `Bearer`.
fn token<'a>(header: &str, value: &'a [u8]) -> Option<&'a [u8]> {
    match super::after_bearer(value) {
        Some(token) => Some(token),
        None if header.eq_ignore_ascii_case("authorization") => None,
        None => Some(value),
    }
}

fn bad(error: &ErrorKind) -> BadToken {
    match error {
        ErrorKind::InvalidSignature => BadToken::Signature,
        ErrorKind::ExpiredSignature => BadToken::Expired,
        ErrorKind::ImmatureSignature => BadToken::Immature,
        ErrorKind::InvalidIssuer => BadToken::Issuer,
        ErrorKind::InvalidAudience => BadToken::Audience,
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::UnsupportedAlgorithm => {
            BadToken::Algorithm
        }
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => BadToken::Claims,
        _ => BadToken::Malformed,
    }
}

fn algorithm_of(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::RS256 => Algorithm::RS256,
        JwtAlgorithm::RS384 => Algorithm::RS384,
        JwtAlgorithm::RS512 => Algorithm::RS512,
        JwtAlgorithm::PS256 => Algorithm::PS256,
        JwtAlgorithm::PS384 => Algorithm::PS384,
        JwtAlgorithm::PS512 => Algorithm::PS512,
        JwtAlgorithm::ES256 => Algorithm::ES256,
        JwtAlgorithm::ES384 => Algorithm::ES384,
        JwtAlgorithm::EdDSA => Algorithm::EdDSA,
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
