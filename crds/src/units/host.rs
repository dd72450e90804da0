//! Host names that DNS can be asked for.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::UnitError;
use crate::schema;

const PATTERN: &str =
    r"^[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?)*\.?$";
const MAX_LENGTH: usize = 253;
const MAX_LABEL: usize = 63;

/// A DNS name, such as `s3.example.com`. A trailing dot keeps the search domains out.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DnsName(String);

impl DnsName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DnsName {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let label = |label: &str| {
            (1..=MAX_LABEL).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let name = text.strip_suffix('.').unwrap_or(text);
        if text.len() > MAX_LENGTH || !name.split('.').all(label) {
            return Err(UnitError(format!(
                "{text:?} is not a host name; write a DNS name such as s3.example.com, without scheme or port"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for DnsName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for DnsName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for DnsName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for DnsName {
    fn schema_name() -> Cow<'static, str> {
        "DnsName".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::string(PATTERN, 253, "A DNS name such as s3.example.com, without scheme or port.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_host_names_are_host_names() {
        for text in ["localhost", "s3.example.com", "s3.example.com.", "_http._tcp.example.com", "a-b.c"] {
            assert!(text.parse::<DnsName>().is_ok(), "{text}");
        }
        for text in ["", ".", "a..b", "-a", "a-", "http://a", "a:80", "a b", &"a".repeat(64)] {
            assert!(text.parse::<DnsName>().is_err(), "{text}");
        }
    }
}
