//! Values that users write as a text or as a bare number: YAML makes a number of `1` and of `200`.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::{Deserializer, de};

use super::UnitError;

/// Reads either through the parser of texts. `expecting` says what was wanted where it is neither.
pub(super) fn text_or_number<'de, D, T>(deserializer: D, expecting: &'static str) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err = UnitError>,
{
    deserializer.deserialize_any(TextOrNumber { expecting, value: PhantomData })
}

struct TextOrNumber<T> {
    expecting: &'static str,
    value: PhantomData<T>,
}

impl<T: FromStr<Err = UnitError>> de::Visitor<'_> for TextOrNumber<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}
