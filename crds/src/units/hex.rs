//! Bytes as people write them: `0a1b2c`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::UnitError;
use crate::schema;

const PATTERN: &str = "^([0-9A-Fa-f]{2})+$";

/// Most bytes of one value.
const MAX_BYTES: usize = 1024;

/// At least one byte, two hexadecimal digits each.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HexBytes(Vec<u8>);

impl HexBytes {
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for HexBytes {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        };
        if text.len() > 2 * MAX_BYTES {
            return Err(UnitError(format!("it has more than {MAX_BYTES} bytes; write fewer")));
        }
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.filter(|bytes| !bytes.is_empty()).map(Self).ok_or_else(|| {
            UnitError(format!(
                "{text:?} is not a row of bytes; write two hexadecimal digits for each, as in 0a1b"
            ))
        })
    }
}

impl fmt::Display for HexBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Serialize for HexBytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HexBytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for HexBytes {
    fn schema_name() -> Cow<'static, str> {
        "HexBytes".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::string(PATTERN, 2048, "Bytes, two hexadecimal digits each, as in 0a1b.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_pairs_of_digits_and_nothing_else() {
        for (text, bytes, shown) in [("00", &[0][..], "00"), ("0aFf7F", &[10, 255, 127], "0aff7f")] {
            let value: HexBytes = text.parse().unwrap();
            assert_eq!((value.as_bytes(), value.to_string().as_str()), (bytes, shown));
        }
        for text in ["", "0", "0x00", "000", "zz", "00 00", "+1", "é0"] {
            assert!(text.parse::<HexBytes>().is_err(), "{text}");
        }
        assert!("00".repeat(MAX_BYTES).parse::<HexBytes>().is_ok());
        assert!("00".repeat(MAX_BYTES + 1).parse::<HexBytes>().is_err());
    }
}
