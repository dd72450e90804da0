//! Names that TLS clients ask a server for.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::UnitError;
use crate::schema;

const PATTERN: &str =
    r"^(\*\.)?[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?(\.[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?)*$";
const MAX_LENGTH: usize = 253;
const MAX_LABEL: usize = 63;

/// A server name such as `a.example.com`, or `*.example.com` for all names below that one. In lower case, as names are compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServerNamePattern(String);

impl ServerNamePattern {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name below which all names are meant; `None` for a name itself.
    pub fn above(&self) -> Option<&str> {
        self.0.strip_prefix("*.")
    }
}

impl FromStr for ServerNamePattern {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let label = |label: &str| {
            let byte =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(byte)
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let name = text.strip_prefix("*.").unwrap_or(text);
        if text.len() > MAX_LENGTH || !name.split('.').all(label) {
            return Err(UnitError(format!(
                "{text:?} is not a server name; write one such as a.example.com or *.example.com, in lower case"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for ServerNamePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for ServerNamePattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for ServerNamePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for ServerNamePattern {
    fn schema_name() -> Cow<'static, str> {
        "ServerNamePattern".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::string(
            PATTERN,
            253,
            "A server name such as a.example.com, or *.example.com for all names below that one.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_server_names_are_server_names() {
        for (text, above) in [
            ("localhost", None),
            ("a.example.com", None),
            ("*.example.com", Some("example.com")),
            ("*.a", Some("a")),
        ] {
            assert_eq!(text.parse::<ServerNamePattern>().unwrap().above(), above, "{text}");
        }
        for text in ["", "*", "*.", "a.*.b", "*a.b", "A.example.com", "a.", "-a", "a:80", &"a".repeat(64)] {
            assert!(text.parse::<ServerNamePattern>().is_err(), "{text}");
        }
    }
}
