//! A JSON Web Key Set: bytes -> the keys in it that can verify tokens. Pure.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

/// Most keys of one set; issuers have two or three.
pub(super) const MOST: usize = 64;

/// Keys that a token without a key's name is tried with, at most.
pub(super) const MOST_TRIED: usize = 4;

/// Why a set cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::http) enum KeySetError {
    #[error("it is no JSON Web Key Set: {0}")]
    Malformed(#[from] serde_json::Error),
    #[error("it has more than {MOST} keys")]
    TooMany,
    #[error("it has no key that signatures could be verified with")]
    Empty,
}

/// Public keys. Secrets shared by two sides (`oct`), keys to encrypt with and those of unknown kinds are left out.
#[derive(Debug)]
pub(super) struct KeySet(Vec<Key>);

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// None for one that is good for every algorithm of its family.
    algorithm: Option<Algorithm>,
    key: DecodingKey,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

impl KeySet {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, KeySetError> {
        let Document { keys } = serde_json::from_slice(bytes)?;
        if keys.len() > MOST {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = keys.iter().filter_map(Key::of).collect();
        if keys.is_empty() { Err(KeySetError::Empty) } else { Ok(Self(keys)) }
    }

    /// The keys that a token may be signed with that names this one, or none.
    pub(super) fn candidates(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let fits = move |key: &&Key| {
            id.is_none_or(|id| key.id.as_deref() == Some(id))
                && key.key.family() == algorithm.family()
                && key.algorithm.is_none_or(|known| known == algorithm)
        };
        self.0.iter().filter(fits).take(MOST_TRIED).map(|key| &key.key)
    }

    pub(super) fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id.as_deref() == Some(id))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

impl Key {
    fn of(value: &Value) -> Option<Self> {
        let jwk = Jwk::deserialize(value).ok()?;
        let common = &jwk.common;
        let verifies = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
            && common.key_operations.as_ref().is_none_or(|all| all.contains(&KeyOperations::Verify));
        let known = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => true,
            AlgorithmParameters::EllipticCurve(key) => {
                matches!(key.curve, EllipticCurve::P256 | EllipticCurve::P384)
            }
            AlgorithmParameters::OctetKeyPair(key) => key.curve == EllipticCurve::Ed25519,
            _ => false,
        };
        if !(verifies && known) {
            return None;
        }
        // One that names an algorithm which nobody knows is good for none.
        let algorithm = common.key_algorithm.map(Algorithm::try_from).transpose().ok()?;
        Some(Self { id: common.key_id.clone(), algorithm, key: DecodingKey::from_jwk(&jwk).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn count(keys: Value) -> Option<usize> {
        KeySet::parse(json!({ "keys": keys }).to_string().as_bytes()).ok().map(|set| set.len())
    }

    #[test]
    fn only_public_keys_for_signatures_are_taken() {
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"});
        let with = |more: Value| {
            let mut key = p256.clone();
            key.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            key
        };
        assert_eq!(count(json!([p256])), Some(1));
        for other in [
            with(json!({"use": "enc"})),
            with(json!({"key_ops": ["deriveKey"]})),
            with(json!({"crv": "P-521"})),
            with(json!({"crv": "secp256k1"})),
            with(json!({"alg": "ECDH-ES"})),
            json!({"kty": "oct", "k": "c2VjcmV0"}),
            json!({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}),
            json!({"kty": "AKP", "pub": "AAAA"}),
            json!({"kty": "RSA", "n": "!", "e": "AQAB"}),
            json!("key"),
        ] {
            assert_eq!(count(json!([other])), None, "{other}");
            assert_eq!(count(json!([other, p256])), Some(1), "{other}");
        }
    }

    #[test]
    fn what_is_no_set_says_so() {
        for (text, expected) in [
            ("", "no JSON Web Key Set"),
            ("[]", "no JSON Web Key Set"),
            ("{\"keys\": []}", "no key"),
            (&json!({ "keys": vec![json!({}); MOST + 1] }).to_string(), "more than 64 keys"),
        ] {
            let error = KeySet::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_key_is_good_for_its_name_and_its_algorithm() {
        let key =
            |id: &str, alg: &str| json!({"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": id, "alg": alg});
        let set = json!({"keys": [key("a", "RS256"), key("b", "PS256")]}).to_string();
        let set = KeySet::parse(set.as_bytes()).unwrap();
        for (id, algorithm, expected) in [
            (Some("a"), Algorithm::RS256, 1),
            (Some("a"), Algorithm::RS512, 0),
            (Some("a"), Algorithm::ES256, 0),
            (Some("c"), Algorithm::RS256, 0),
            (None, Algorithm::PS256, 1),
            (None, Algorithm::EdDSA, 0),
        ] {
            assert_eq!(set.candidates(id, algorithm).count(), expected, "{id:?} {algorithm:?}");
        }
        assert!(set.has("a") && !set.has("c"));
    }
}
