//! Sizes in bytes, written as Kubernetes writes amounts of memory: `65536`, `10Mi`, `1.5Gi`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Quantity, UnitError, text_or_number::text_or_number};

/// That of a quantity but for thousandths: who writes `10m` means 10 MB, and would get one byte.
const PATTERN: &str = r"^[0-9]{1,9}(\.[0-9]{1,9})?(k|M|G|T|Ki|Mi|Gi|Ti)?$";

/// A number of bytes. The text is kept as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ByteSize(Quantity);

impl ByteSize {
    /// Rounded up to whole bytes; what is more than 64 bits can hold is as much as they can.
    pub fn bytes(&self) -> u64 {
        u64::try_from(self.0.ceil()).unwrap_or(u64::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let quantity = text.parse().ok().filter(|_| !text.ends_with('m'));
        quantity.map(Self).ok_or_else(|| {
            UnitError(format!("{text:?} is not a size in bytes; write it like 65536, 512Ki, 10Mi or 5Gi"))
        })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a size in bytes such as 65536, 10Mi or 5Gi")
    }
}

impl JsonSchema for ByteSize {
    fn schema_name() -> Cow<'static, str> {
        "ByteSize".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 0,
            "maximum": 999_999_999,
            "pattern": PATTERN,
            "maxLength": 24,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_amounts_of_memory_and_never_as_thousandths() {
        for (text, bytes) in [
            ("0", 0),
            ("65536", 65_536),
            ("10Mi", 10 << 20),
            ("1.5Gi", 3 << 29),
            ("5Gi", 5 << 30),
            ("2k", 2_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().bytes(), bytes, "{text}");
        }
        assert_eq!("999999999Ti".parse::<ByteSize>().unwrap().bytes(), u64::MAX);
        for text in ["", "10m", "10MB", "-1", "1e3", "ten"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
        assert_eq!(serde_json::from_str::<ByteSize>("1048576").unwrap(), "1Mi".parse().unwrap());
    }
}
