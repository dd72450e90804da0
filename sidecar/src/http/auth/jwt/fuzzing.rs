//! What is promised of tokens, and of the keys that they are verified with, whatever their bytes are; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use std::sync::LazyLock;

use serde_json::json;

use super::{
    ALL, KeySets, Verifier, algorithm_of,
    key_set::{KeySet, MOST, MOST_TRIED},
};

/// The corpus has tokens of these keys, none of which is good: one is over, one is for somebody else. Nobody has the private
/// halves any more.
const KEYS: &str = concat!(
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"d","x":"CCON76s-EkSPOqpVKwmdwarXsJs9ZmW30D08cB13B2A"},"#,
    r#"{"kty":"EC","crv":"P-256","kid":"e","use":"sig","alg":"ES256","x":"oWr2OZ53uohvlXMvP7w7fBGYvfwFsAqDHZvDKA6xVoA","#,
    r#""y":"RP0ekJAvz10-2KA14Mw9WuQ0VJj6-71hy3_m0-2G1NY"}]}"#
);

/// Heads of tokens that name an algorithm and no key, one for each of [`ALL`].
const HEADS: [&str; ALL.len()] = [
    "eyJhbGciOiJSUzI1NiJ9",
    "eyJhbGciOiJSUzM4NCJ9",
    "eyJhbGciOiJSUzUxMiJ9",
    "eyJhbGciOiJQUzI1NiJ9",
    "eyJhbGciOiJQUzM4NCJ9",
    "eyJhbGciOiJQUzUxMiJ9",
    "eyJhbGciOiJFUzI1NiJ9",
    "eyJhbGciOiJFUzM4NCJ9",
    "eyJhbGciOiJFZERTQSJ9",
];

/// The claims of a token that would be good.
const CLAIMS: &str = "eyJpc3MiOiJodHRwczovL2lzc3Vlci50ZXN0IiwiYXVkIjoiYXBwIiwiZXhwIjo5OTk5OTk5OTk5fQ";

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let jwt = json!({
        "issuer": "https://issuer.test", "audiences": ["app"], "jwks": {"url": "https://issuer.test/keys", "tls": {"insecureSkipVerify": true}},
    });
    Verifier::new(&serde_json::from_value(jwt).unwrap(), &KeySets::default()).unwrap()
});

/// No token that the issuer did not sign, or signed for another time or another audience, is good.
pub fn token(bytes: &[u8]) {
    static SET: LazyLock<KeySet> = LazyLock::new(|| KeySet::parse(KEYS.as_bytes()).unwrap());
    let bad = VERIFIER.verify(bytes, &SET).unwrap_err();
    assert!(!bad.to_string().is_empty());
}

/// A set is refused, or has keys within bounds, of which no token without a signature is.
pub fn key_set(bytes: &[u8]) {
    let Ok(set) = KeySet::parse(bytes) else { return };
    assert!((1..=MOST).contains(&set.len()));
    for (algorithm, head) in ALL.into_iter().zip(HEADS) {
        assert!(set.candidates(None, algorithm_of(algorithm)).count() <= MOST_TRIED);
        // As long as the signatures of elliptic curves, of RSA, and none.
        for length in [86, 128, 342, 0] {
            let token = format!("{head}.{CLAIMS}.{}", "A".repeat(length));
            assert!(VERIFIER.verify(token.as_bytes(), &set).is_err(), "{token}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::auth::jwt::BadToken;

    #[test]
    fn the_tokens_of_the_corpus_are_refused_for_what_is_wrong_with_them() {
        let set = KeySet::parse(KEYS.as_bytes()).unwrap();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/token");
        for (name, expected) in [
            ("expired-eddsa", BadToken::Expired),
            ("expired-es256", BadToken::Expired),
            ("another-issuer", BadToken::Issuer),
            ("another-audience", BadToken::Audience),
            ("mixed-audience", BadToken::Claims),
            ("not-yet", BadToken::Immature),
            ("no-expiry", BadToken::Claims),
            ("critical", BadToken::Malformed),
        ] {
            let token = std::fs::read(format!("{folder}/{name}")).unwrap();
            assert_eq!(VERIFIER.verify(&token, &set).unwrap_err(), expected, "{name}");
        }
    }
}
