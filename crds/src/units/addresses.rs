//! Addresses with ellipsis ranges: `10.9.0.{1...4}:9000` stands for four of them, `unix:/run/{1...2}.sock` for two.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{Address, UnitError};

/// Most addresses that one pattern may stand for.
pub const MAX_ADDRESSES: usize = 1024;

const MAX_LENGTH: usize = 128;
// IPv4 with ranges, or IPv6 in brackets, then a port from 1 to 65535 or a range of them; or the path of a Unix socket.
const PATTERN: &str = r"^((((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])|\{(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.\.\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\})(\.((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])|\{(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.\.\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\})){3}|\[[0-9A-Fa-f:.]{2,45}\]):((6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})|\{(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})\.\.\.(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})\})|unix:/[-A-Za-z0-9._/@%+=]*(\{[0-9]{1,5}\.\.\.[0-9]{1,5}\})?[-A-Za-z0-9._/@%+=]*[-A-Za-z0-9._@%+=}])$";

/// `ip:port` or `unix:/path`, where each `{a...b}` counts from a to b. IPv6 addresses stand in brackets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AddressPattern {
    text: String,
    addresses: Vec<Address>,
}

impl AddressPattern {
    /// All the addresses that the pattern stands for, in the order it counts them: 1 to [`MAX_ADDRESSES`].
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }
}

impl FromStr for AddressPattern {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let fail = |why: &str| UnitError(format!("{text:?} is not an address: {why}"));
        if text.len() > MAX_LENGTH {
            return Err(fail("it is longer than 128 characters"));
        }
        let mut addresses = Vec::new();
        for expanded in expand(text).map_err(|why| fail(&why))? {
            addresses.push(expanded.parse().map_err(|UnitError(why)| fail(&why))?);
        }
        Ok(Self { text: text.to_owned(), addresses })
    }
}

/// Replaces every `{a...b}` by the numbers from a to b: the product of all ranges, leftmost slowest.
fn expand(text: &str) -> Result<Vec<String>, String> {
    let mut done = vec![String::new()];
    let mut rest = text;
    while let Some(open) = rest.find('{') {
        let (literal, tail) = rest.split_at(open);
        let close = tail.find('}').ok_or("a { without its }; write a range as {1...4}")?;
        let range = &tail[1..close];
        let bounds = range.split_once("...").and_then(|(first, last)| {
            let number = |digits: &str| {
                (digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit()))
                    .then(|| digits.parse::<u32>().ok())?
            };
            Some((number(first)?, number(last)?))
        });
        let (first, last) = bounds
            .ok_or_else(|| format!("{{{}}} is not a range; write it as {{1...4}}", range.escape_debug()))?;
        if first > last {
            return Err(format!("the range {{{range}}} counts down; write the smaller number first"));
        }
        let count = (last - first) as usize + 1;
        if done.len().saturating_mul(count) > MAX_ADDRESSES {
            return Err(format!("it stands for more than {MAX_ADDRESSES} addresses"));
        }
        done = done
            .iter()
            .flat_map(|head| (first..=last).map(move |number| format!("{head}{literal}{number}")))
            .collect();
        rest = &tail[close + 1..];
    }
    done.iter_mut().for_each(|head| head.push_str(rest));
    Ok(done)
}

impl fmt::Display for AddressPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for AddressPattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for AddressPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for AddressPattern {
    fn schema_name() -> Cow<'static, str> {
        "AddressPattern".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": PATTERN,
            "maxLength": 80,
            "description": "ip:port, IPv6 in brackets, or unix:/path; {1...4} counts from 1 to 4, so 10.9.0.{1...4}:9000 is four addresses.",
            "x-kubernetes-validations": [
                {
                    "rule": "self.split('{').size() <= 2",
                    "message": "at most one range stands in an address: write several addresses instead",
                },
                {
                    "rule": "!self.contains('{') || int(self.split('{')[1].split('...')[0]) <= int(self.split('...')[1].split('}')[0])",
                    "message": "a range counts up: write the smaller number first, as in {1...4}",
                },
                {
                    "rule": "!self.contains('{') || int(self.split('...')[1].split('}')[0]) - int(self.split('{')[1].split('...')[0]) < 1024",
                    "message": "a range stands for at most 1024 addresses",
                },
                {
                    "rule": "!self.startsWith('[') || (self.split(']')[0].contains(':') && isIP(self.split(']')[0].replace('[', '')))",
                    "message": "this is not an IPv6 address: write it like [fd00::1]:9000",
                },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_expand_leftmost_slowest() {
        let pattern: AddressPattern = "10.{1...2}.0.{8...9}:9000".parse().unwrap();
        let texts: Vec<String> = pattern.addresses().iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["10.1.0.8:9000", "10.1.0.9:9000", "10.2.0.8:9000", "10.2.0.9:9000"]);
        let six: AddressPattern = "[fd00::{1...2}]:{80...81}".parse().unwrap();
        assert_eq!(six.addresses().len(), 4);
        assert_eq!("127.0.0.1:1".parse::<AddressPattern>().unwrap().addresses().len(), 1);
    }

    #[test]
    fn what_is_not_an_address_is_refused_with_the_remedy() {
        for (text, hint) in [
            ("10.0.0.{4...1}:80", "smaller number first"),
            ("10.0.0.{1..4}:80", "{1...4}"),
            ("10.0.0.{1...4:80", "without its }"),
            ("10.0.0.{250...260}:80", "ip:port"),
            ("10.0.0.1", "ip:port"),
            ("minio:9000", "ip:port"),
            ("10.0.0.1:0", "1 to 65535"),
            ("10.{0...255}.{0...255}.1:80", "more than 1024"),
        ] {
            let error = text.parse::<AddressPattern>().unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }
}
