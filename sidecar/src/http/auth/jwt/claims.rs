//! What a token says of its client, and how a backend is told of it. Pure.

use std::borrow::Cow;

use crds::config::ClaimHeader;
use serde_json::{Map, Value};

/// Longest value of a header that is made of a claim.
const LONGEST: usize = 4096;

/// The claims of a token that was verified.
#[derive(Debug, Clone)]
pub(in crate::http::auth) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    pub(in crate::http::auth) fn subject(&self) -> Option<&str> {
        self.0.get("sub").and_then(Value::as_str)
    }

    /// Seconds since 1970.
    pub(super) fn expires(&self) -> u64 {
        let expires = self.0.get("exp");
        // Verified tokens have one, as a whole number or not.
        expires.and_then(|time| time.as_u64().or_else(|| time.as_f64().map(|time| time as u64))).unwrap_or(0)
    }

    /// Each value of a claim as text: one, those of a list, and the words of a scope.
    pub(in crate::http::auth) fn values(&self, claim: &str) -> Vec<Cow<'_, str>> {
        match self.find(claim) {
            Some(Value::String(words)) if matches!(claim, "scope" | "scp") => {
                words.split_ascii_whitespace().map(Cow::Borrowed).collect()
            }
            Some(Value::Array(values)) => values.iter().filter_map(text).collect(),
            Some(value) => text(value).into_iter().collect(),
            None => Vec::new(),
        }
    }

    /// The lines that tell a backend of claims. What no header can hold is left out.
    pub(super) fn lines(&self, headers: &[ClaimHeader]) -> Vec<u8> {
        let mut lines = Vec::new();
        for ClaimHeader { claim, header } in headers {
            let value = match self.find(claim) {
                Some(Value::Array(values)) => values.iter().filter_map(text).collect::<Vec<_>>().join(","),
                Some(value) => text(value).unwrap_or_default().into_owned(),
                None => continue,
            };
            let fits =
                (1..=LONGEST).contains(&value.len()) && !value.bytes().any(|byte| byte.is_ascii_control());
            if fits && value.trim_ascii() == value {
                lines.extend_from_slice(header.as_bytes());
                lines.extend_from_slice(b": ");
                lines.extend_from_slice(value.as_bytes());
                lines.extend_from_slice(b"\r\n");
            }
        }
        lines
    }

    /// A claim by its whole name, or by the path to it.
    fn find(&self, claim: &str) -> Option<&Value> {
        self.0.get(claim).or_else(|| {
            let (first, rest) = claim.split_once('.')?;
            rest.split('.').try_fold(self.0.get(first)?, |value, name| value.get(name))
        })
    }
}

fn text(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(text.into()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: Value) -> Claims {
        let Value::Object(claims) = value else { panic!("{value}") };
        Claims::new(claims)
    }

    #[test]
    fn values_are_found_wherever_issuers_put_them() {
        let claims = claims(json!({
            "sub": "spark", "level": 3, "admin": true, "groups": ["a", "b c", 7, {"d": 1}], "scope": "read write",
            "realm": {"roles": ["x"], "deep": {"y": "z"}}, "realm.roles": "whole", "none": null,
        }));
        for (claim, expected) in [
            ("sub", vec!["spark"]),
            ("level", vec!["3"]),
            ("admin", vec!["true"]),
            ("groups", vec!["a", "b c", "7"]),
            ("scope", vec!["read", "write"]),
            ("realm.roles", vec!["whole"]),
            ("realm.deep.y", vec!["z"]),
            ("realm.deep.y.z", vec![]),
            ("realm", vec![]),
            ("none", vec![]),
            ("missing", vec![]),
        ] {
            assert_eq!(claims.values(claim), expected, "{claim}");
        }
    }

    #[test]
    fn a_backend_is_told_of_what_a_header_can_hold() {
        let header = |claim: &str| ClaimHeader { claim: claim.to_owned(), header: format!("X-{claim}") };
        let claims = claims(json!({
            "sub": "spark", "groups": ["a", "b"], "n": 7, "bad": "a\r\nX-Admin: 1", "empty": "", "object": {"a": 1},
            "long": "a".repeat(5000), "space": " a",
        }));
        let all = ["sub", "groups", "n", "bad", "empty", "object", "long", "space", "missing"].map(header);
        let lines = String::from_utf8(claims.lines(&all)).unwrap();
        assert_eq!(lines, "X-sub: spark\r\nX-groups: a,b\r\nX-n: 7\r\n");
    }

    proptest! {
        #[test]
        fn no_claim_writes_a_line_of_its_own(values in prop::collection::vec(any::<String>(), 0..4)) {
            let claims = claims(json!({"a": values}));
            let lines = claims.lines(&[ClaimHeader { claim: "a".to_owned(), header: "X-A".to_owned() }]);
            let text = String::from_utf8(lines).unwrap();
            prop_assert!(text.is_empty() || text.starts_with("X-A: ") && text.ends_with("\r\n"));
            prop_assert!(text.matches(['\r', '\n']).count() <= 2);
        }
    }
}
