//! Kubernetes quantities, as far as CPU and memory need them: `50m`, `1`, `0.5`, `128Mi`.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{UnitError, text_or_number::text_or_number};

const PATTERN: &str = r"^[0-9]{1,9}(\.[0-9]{1,9})?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$";
const MAX_DIGITS: usize = 9;

/// An amount of CPU or memory. The text is kept as written, so that what users wrote is what their pods show.
#[derive(Debug, Clone)]
pub struct Quantity {
    text: String,
    thousandths: u128,
}

impl Quantity {
    /// The amount in thousandths: millicores for CPU, thousandths of a byte for memory.
    pub fn thousandths(&self) -> u128 {
        self.thousandths
    }

    /// The amount rounded up to whole units: cores or bytes.
    pub fn ceil(&self) -> u128 {
        self.thousandths.div_ceil(1_000)
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Quantity {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = || UnitError(format!("{text:?} is not a quantity; write it like 50m, 1, 128Mi or 1Gi"));
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |part: &str| {
            (1..=MAX_DIGITS).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit())
        };
        if !digits(whole) || !digits(fraction) {
            return Err(fail());
        }
        let factor: u128 = match suffix {
            "m" => 1,
            "" => 1_000,
            "k" => 1_000_000,
            "M" => 1_000_000_000,
            "G" => 1_000_000_000_000,
            "T" => 1_000_000_000_000_000,
            "Ki" => 1_000 << 10,
            "Mi" => 1_000 << 20,
            "Gi" => 1_000 << 30,
            "Ti" => 1_000 << 40,
            _ => return Err(fail()),
        };
        let whole: u128 = whole.parse().map_err(|_| fail())?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).map_err(|_| fail())?);
        let fraction: u128 = fraction.parse().map_err(|_| fail())?;
        Ok(Self { text: text.to_owned(), thousandths: whole * factor + (fraction * factor).div_ceil(scale) })
    }
}

/// Equal amounts are equal, however they are written: `1` and `1000m`.
impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.thousandths == other.thousandths
    }
}

impl Eq for Quantity {}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        text_or_number(deserializer, "a quantity such as 50m, 1 or 128Mi")
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": PATTERN,
            "maxLength": 24,
            "description": "An amount of CPU or memory such as 50m, 1, 128Mi or 1Gi.",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, thousandths) in [
            ("50m", 50),
            ("1", 1_000),
            ("0.5", 500),
            ("1k", 1_000_000),
            ("1Ki", 1_024_000),
            ("1.5Gi", 1_610_612_736_000),
        ] {
            assert_eq!(text.parse::<Quantity>().unwrap().thousandths(), thousandths, "{text}");
        }
        for text in ["", "m", "-1", "1e3", "1 Mi", "1mi", "1.", ".5", "1.2.3"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn equal_amounts_are_equal_however_written() {
        assert_eq!("1".parse::<Quantity>(), "1000m".parse::<Quantity>());
        assert_eq!(serde_json::from_str::<Quantity>("2").unwrap(), "2".parse().unwrap());
    }
}
