//! Durations on the command line: `5s`, `1m30s`, `250ms`, or `5` for seconds.

use std::time::Duration;

/// No flag means longer than a week.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// Text that is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("it is not a duration; write it like 5s, 250ms or 1m30s, or 5 for seconds")]
    Syntax,
    #[error("it is longer than a week")]
    Long,
}

/// Reads what Go's flags read, and a number of seconds without a unit.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    let mut total = 0.0;
    if rest.is_empty() {
        return Err(DurationError::Syntax);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let number: f64 = number.parse().map_err(|_| DurationError::Syntax)?;
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" | "μs" => 1e-6,
            "ns" => 1e-9,
            "" if text.bytes().all(|byte| byte.is_ascii_digit()) => 1.0,
            _ => return Err(DurationError::Syntax),
        };
        total += number * seconds;
        rest = tail;
    }
    let duration = Duration::try_from_secs_f64(total).map_err(|_| DurationError::Long)?;
    if duration > LONGEST { Err(DurationError::Long) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them_and_as_seconds() {
        for (text, milliseconds) in [
            ("5", 5_000),
            ("5s", 5_000),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("10m0s", 600_000),
            ("0", 0),
            ("1500us", 1),
        ] {
            assert_eq!(parse(text).map(|duration| duration.as_millis()), Ok(milliseconds), "{text}");
        }
        for text in ["", "s", "-5s", "5 s", "5x", "1s5", "1.5", ".", "5s-", "NaN", "1e3s"] {
            assert_eq!(parse(text), Err(DurationError::Syntax), "{text}");
        }
        assert_eq!(parse("169h"), Err(DurationError::Long));
        assert_eq!(parse(&format!("{}s", "9".repeat(400))), Err(DurationError::Long));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9.hmsun +-]{0,12}\\PC{0,3}") {
            let _ = parse(&text);
        }
    }
}
