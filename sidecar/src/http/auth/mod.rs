//! Who sends a request: token, key or certificate -> names and claims -> allowed or not. Pure but for the keys, which tasks of
//! the control runtime keep current.
//!
//! A request is let in by the first way that knows its client, and a wrong credential is not made good by another one. Keys
//! of clients are held as digests, and compared in the same time whether one is nearly right or not at all.

mod jwt;
mod keys;
mod name;
mod rules;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::{rc::Rc, sync::Arc};

use crds::config::Authentication;
pub(super) use jwt::{FAMILIES, Tokens};
pub use jwt::{JwksError, KeySets};
pub use keys::{KeyFiles, KeysError};

use self::{
    jwt::{Told, Verifier},
    keys::KeyFile,
    rules::Rules,
};
use super::{access::Peer, message::RequestHead, reply::Refusal};

/// What clients are known by, for all listeners. Clones share.
#[derive(Debug, Clone, Default)]
pub struct Keyring {
    pub files: KeyFiles,
    pub sets: KeySets,
}

/// Why clients of a listener cannot be known.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    #[error("apiKeys.file: {0}")]
    Keys(#[from] KeysError),
    #[error("jwt.jwks: {0}")]
    Jwks(#[from] JwksError),
}

/// How clients of a listener are known, and who of them is let in.
#[derive(Debug)]
pub(super) struct Authenticator {
    jwt: Option<Verifier>,
    keys: Option<(Arc<KeyFile>, String)>,
    certificates: bool,
    rules: Rules,
    /// Headers that never go on to a backend.
    removed: Vec<String>,
}

impl Keyring {
    /// Keeps all of it current, until it is dropped.
    pub async fn follow(self) {
        tokio::join!(self.files.follow(), self.sets.follow());
    }
}

impl Authenticator {
    pub(super) fn new(settings: &Authentication, keyring: &Keyring) -> Result<Self, AuthError> {
        let keys = settings.api_keys.as_ref();
        let keys =
            keys.map(|keys| Ok::<_, KeysError>((keyring.files.load(&keys.file)?, keys.header.clone())));
        let jwt = settings.jwt.as_ref();
        let removed = jwt.map(|jwt| {
            let claims = jwt.claim_headers.iter().map(|claim| claim.header.clone());
            claims.chain((!jwt.forward).then(|| jwt.header.clone())).collect()
        });
        Ok(Self {
            jwt: jwt.map(|jwt| Verifier::new(jwt, &keyring.sets)).transpose()?,
            keys: keys.transpose()?,
            certificates: settings.client_certificates,
            rules: Rules::new(&settings.allow),
            removed: removed.unwrap_or_default(),
        })
    }

    /// Headers of a client that no backend is to see.
    pub(super) fn removed(&self) -> &[String] {
        &self.removed
    }

    /// Gives the lines that a backend is told, if there are any.
    pub(super) fn check(
        &self,
        request: &RequestHead,
        peer: &Peer,
        tokens: &mut Tokens,
    ) -> Result<Option<Rc<[u8]>>, Refusal> {
        match self.jwt.as_ref().map(|jwt| jwt.check(request, &self.rules, tokens)) {
            None | Some(Told::Nothing) => {}
            Some(Told::Admitted(lines)) => return Ok(Some(lines)),
            Some(Told::Bad(bad)) => return Err(self.unknown(Some(bad.to_string()))),
            Some(Told::NoKeys) => return Err(Refusal::NoKeys),
            Some(Told::Forbidden) => return Err(Refusal::Forbidden { token: true }),
        }
        if let Some((keys, header)) = &self.keys
            && let Some(value) = request.fields.get(header)
        {
            let current = keys.current();
            let name = current.name_of(secret(header, value)).ok_or_else(|| self.unknown(None))?;
            return self.allow(&[name]);
        }
        match &peer.identity {
            Some(identity) if self.certificates => {
                let lists = [&identity.dns_names, &identity.uris, &identity.emails];
                let names = identity.common_name.iter().chain(lists.into_iter().flatten());
                self.allow(&names.map(String::as_str).collect::<Vec<_>>())
            }
            _ => Err(self.unknown(None)),
        }
    }

    fn allow(&self, names: &[&str]) -> Result<Option<Rc<[u8]>>, Refusal> {
        if self.rules.allow(names, None) { Ok(None) } else { Err(Refusal::Forbidden { token: false }) }
    }

    /// `bad` is what is wrong with the client's token.
    fn unknown(&self, bad: Option<String>) -> Refusal {
        let mut wanted = Vec::new();
        let mut challenges = Vec::new();
        if self.jwt.is_some() {
            wanted.push("a valid token after Bearer".to_owned());
            // RFC 6750: who has sent none is told of no error.
            let error =
                bad.as_ref().map(|bad| format!(", error=\"invalid_token\", error_description=\"{bad}\""));
            challenges.push(format!("Bearer realm=\"sidecar\"{}", error.unwrap_or_default()));
        }
        if let Some((_, header)) = &self.keys {
            wanted.push(format!("a valid key in the header {header}"));
            let scheme = if is_authorization(header) { "Bearer" } else { "ApiKey" };
            challenges.push(format!("{scheme} realm=\"sidecar\""));
        }
        if self.certificates {
            wanted.push("a certificate".to_owned());
        }
        if challenges.is_empty() {
            challenges.push("ClientCertificate realm=\"sidecar\"".to_owned());
        }
        Refusal::Unauthorized {
            wanted: wanted.join(" or "),
            challenge: challenges.join(", "),
            bad: bad.map(|bad| format!("; the token is not good: {bad}")).unwrap_or_default(),
        }
    }
}

fn is_authorization(header: &str) -> bool {
    header.eq_ignore_ascii_case("authorization")
}

/// The key in a header's value.
fn secret<'a>(header: &str, value: &'a [u8]) -> &'a [u8] {
    after_bearer(value).filter(|_| is_authorization(header)).unwrap_or(value)
}

fn after_bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, rest) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| rest.trim_ascii())
}

#[cfg(test)]
mod tests {
    use crds::config::{AllowRule, ApiKeys};

    use super::*;
    use crate::net::tls::Identity;

    const KEYS: &str =
        "# clients\nspark 0123456789abcdef\n\nci fedcba9876543210\nspark another-key-of-spark\n";

    /// What becomes of a request with these fields from a client with this certificate.
    fn status(settings: &Authentication, fields: &str, identity: Option<&Identity>) -> u16 {
        let authenticator = Authenticator::new(settings, &Keyring::default()).unwrap();
        let mut head = RequestHead::default();
        head.parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
        let peer = Peer::known_as(identity.cloned());
        let checked = authenticator.check(&head, &peer, &mut Tokens::default());
        checked.map_or_else(|refusal| refusal.status().as_u16(), |_| 200)
    }

    fn allowing(names: &[&str]) -> Vec<AllowRule> {
        vec![AllowRule { names: names.iter().map(|name| (*name).to_owned()).collect(), claims: Vec::new() }]
    }

    #[test]
    fn a_client_is_known_by_its_key_and_let_in_by_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KEYS).unwrap();
        let keys = |header: &str| {
            let file = file.path().to_str().unwrap().to_owned();
            Some(ApiKeys { file, header: header.to_owned() })
        };
        let all = Authentication { api_keys: keys("X-Api-Key"), ..Authentication::default() };
        let some = Authentication { allow: allowing(&["ci", "sparkling"]), ..all.clone() };
        let bearer = Authentication { api_keys: keys("Authorization"), ..Authentication::default() };
        for (settings, fields, expected) in [
            (&all, "x-api-key: 0123456789abcdef\r\n", 200),
            (&all, "X-API-KEY: another-key-of-spark\r\n", 200),
            (&all, "", 401),
            (&all, "X-Api-Key: \r\n", 401),
            (&all, "X-Api-Key: 0123456789abcde\r\n", 401),
            (&all, "X-Api-Key: 0123456789abcdefg\r\n", 401),
            (&all, "X-Api-Key: spark 0123456789abcdef\r\n", 401),
            (&all, "Authorization: Bearer 0123456789abcdef\r\n", 401),
            (&some, "X-Api-Key: fedcba9876543210\r\n", 200),
            (&some, "X-Api-Key: 0123456789abcdef\r\n", 403),
            (&bearer, "Authorization: bearer 0123456789abcdef\r\n", 200),
            (&bearer, "Authorization: 0123456789abcdef\r\n", 200),
            (&bearer, "Authorization: Basic 0123456789abcdef\r\n", 401),
        ] {
            assert_eq!(status(settings, fields, None), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_client_is_let_in_by_any_name_of_its_certificate() {
        let identity = Identity {
            common_name: Some("spark".to_owned()),
            uris: vec!["spiffe://example.org/ns/analytics/sa/spark".to_owned()],
            ..Identity::default()
        };
        let all = Authentication { client_certificates: true, ..Authentication::default() };
        for (allow, expected) in [
            (Vec::new(), 200),
            (allowing(&["spark"]), 200),
            (allowing(&["ci", "spiffe://example.org/ns/analytics/*"]), 200),
            (allowing(&["spar", "spiffe://example.org/ns/other/*"]), 403),
        ] {
            let settings = Authentication { allow, ..all.clone() };
            assert_eq!(status(&settings, "", Some(&identity)), expected, "{settings:?}");
            assert_eq!(status(&settings, "", None), 401);
        }
        assert_eq!(status(&Authentication::default(), "", Some(&identity)), 401, "certificates do not count");
    }

    #[test]
    fn a_wrong_key_is_not_made_good_by_a_certificate() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KEYS).unwrap();
        let api_keys =
            Some(ApiKeys { file: file.path().to_str().unwrap().to_owned(), header: "X-Api-Key".to_owned() });
        let both = Authentication { api_keys, client_certificates: true, ..Authentication::default() };
        let identity = Identity::default();
        assert_eq!(status(&both, "X-Api-Key: wrong\r\n", Some(&identity)), 401);
        assert_eq!(status(&both, "", Some(&identity)), 200);
        assert_eq!(status(&both, "X-Api-Key: 0123456789abcdef\r\n", None), 200);
    }
}
