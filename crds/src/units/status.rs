//! Ranges of HTTP status codes: `200`, `200-299`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::json;

use super::{UnitError, text_or_number::text_or_number};

const PATTERN: &str = "^[1-5][0-9]{2}(-[1-5][0-9]{2})?$";

/// One status code, or all from the first to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusRange {
    first: u16,
    last: u16,
}

impl StatusRange {
    pub const fn one(code: u16) -> Self {
        Self { first: code, last: code }
    }

    pub fn contains(&self, code: u16) -> bool {
        (self.first..=self.last).contains(&code)
    }
}

impl FromStr for StatusRange {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail =
            || UnitError(format!("{text:?} is not a status code or a range of them; write 200 or 200-299"));
        let code = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
            text.parse::<u16>().ok().filter(|code| digits && (100..=599).contains(code)).ok_or_else(fail)
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (code(first)?, code(last)?);
        if first > last {
            return Err(UnitError(format!(
                "the range {text} counts down; write the smaller code first, as in 200-299"
            )));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for StatusRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last { self.first.fmt(f) } else { write!(f, "{}-{}", self.first, self.last) }
    }
}

/// One code is written as a number.
impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.first == self.last {
            serializer.serialize_u16(self.first)
        } else {
            serializer.collect_str(self)
        }
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a status code such as 200, or a range such as 200-299")
    }
}

impl JsonSchema for StatusRange {
    fn schema_name() -> Cow<'static, str> {
        "StatusRange".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 100,
            "maximum": 599,
            "maxLength": 7,
            "pattern": PATTERN,
            "description": "A status code such as 200, or a range of them such as 200-299.",
            "x-kubernetes-validations": [json!({
                "rule": "string(self).size() < 7 || string(self).substring(0, 3) <= string(self).substring(4)",
                "message": "a range counts up: write the smaller code first, as in 200-299",
            })],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_ranges_are_read_and_written_alike() {
        for (text, json, inside, outside) in [
            ("200", "200", 200, 201),
            ("200-299", "\"200-299\"", 250, 300),
            ("404-404", "404", 404, 403),
            ("100-599", "\"100-599\"", 599, 600),
        ] {
            let range: StatusRange = text.parse().unwrap();
            assert!(range.contains(inside) && !range.contains(outside), "{text}");
            assert_eq!(serde_json::to_string(&range).unwrap(), json);
            assert_eq!(serde_json::from_str::<StatusRange>(json).unwrap(), range);
        }
        for text in ["", "20", "099", "600", "2xx", "299-200", "200-", "-200", "200 - 299", "+20"] {
            assert!(text.parse::<StatusRange>().is_err(), "{text}");
        }
    }
}
