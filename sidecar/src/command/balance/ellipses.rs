//! Ranges in URLs: `http://minio{1...4}:9000` stands for four of them. Pure.
//!
//! `{01...12}` keeps the width of its numbers, `{a...f}` counts in hexadecimal.

/// Most URLs that one pattern may stand for.
pub(super) const MOST: usize = 1024;

/// Why a pattern cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum EllipsisError {
    #[error("it has a {{ without its }}, or a }} without its {{; write a range as {{1...4}}")]
    Braces,
    #[error("{{{}}} is not a range; write it as {{1...4}}, with three dots", .0.escape_debug())]
    Range(String),
    #[error("the range {{{0}}} counts down; write the smaller number first")]
    Down(String),
    #[error("it stands for more than {MOST} URLs")]
    Many,
}

/// All that the pattern stands for, the leftmost range slowest.
pub(super) fn expand(pattern: &str) -> Result<Vec<String>, EllipsisError> {
    let mut done = vec![String::new()];
    let mut rest = pattern;
    while let Some((literal, tail)) = rest.split_once('{') {
        let (range, tail) = tail.split_once('}').ok_or(EllipsisError::Braces)?;
        if literal.contains('}') || range.contains('{') {
            return Err(EllipsisError::Braces);
        }
        let numbers = count(range, MOST / done.len())?;
        done = done
            .iter()
            .flat_map(|head| numbers.iter().map(move |number| format!("{head}{literal}{number}")))
            .collect();
        rest = tail;
    }
    if rest.contains('}') {
        return Err(EllipsisError::Braces);
    }
    done.iter_mut().for_each(|url| url.push_str(rest));
    Ok(done)
}

fn count(range: &str, most: usize) -> Result<Vec<String>, EllipsisError> {
    let wrong = || EllipsisError::Range(range.to_owned());
    let (first, last) = range.split_once("...").ok_or_else(wrong)?;
    let digits = |text: &str, radix| {
        let own = text.chars().all(|c| c.is_digit(radix) && !c.is_ascii_uppercase());
        own.then(|| u64::from_str_radix(text, radix).ok()).flatten()
    };
    let both = |radix| Some((digits(first, radix)?, digits(last, radix)?));
    let (low, high, decimal) = match (both(10), both(16)) {
        (Some((low, high)), _) => (low, high, true),
        (None, Some((low, high))) => (low, high, false),
        (None, None) => return Err(wrong()),
    };
    if low > high {
        return Err(EllipsisError::Down(range.to_owned()));
    }
    if high - low >= most as u64 {
        return Err(EllipsisError::Many);
    }
    let width = if first.len() > 1 && first.starts_with('0') { last.len() } else { 0 };
    let number = |value| if decimal { format!("{value:0width$}") } else { format!("{value:0width$x}") };
    Ok((low..=high).map(number).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ranges_count_as_sidekicks_do() {
        for (pattern, urls) in [
            ("http://a:1", vec!["http://a:1"]),
            (
                "http://minio{1...3}:9000",
                vec!["http://minio1:9000", "http://minio2:9000", "http://minio3:9000"],
            ),
            ("n{09...11}", vec!["n09", "n10", "n11"]),
            ("n{001...2}", vec!["n1", "n2"]),
            ("n{8...b}", vec!["n8", "n9", "na", "nb"]),
            ("n{0e...10}", vec!["n0e", "n0f", "n10"]),
            ("{1...2}.{3...4}", vec!["1.3", "1.4", "2.3", "2.4"]),
            ("n{5...5}", vec!["n5"]),
        ] {
            assert_eq!(expand(pattern).unwrap(), urls, "{pattern}");
        }
    }

    #[test]
    fn what_is_no_range_is_named() {
        for (pattern, error) in [
            ("a{1..4}", EllipsisError::Range("1..4".into())),
            ("a{1\n..4}", EllipsisError::Range("1\n..4".into())),
            ("a{1...x}", EllipsisError::Range("1...x".into())),
            ("a{...4}", EllipsisError::Range("...4".into())),
            ("a{A...F}", EllipsisError::Range("A...F".into())),
            ("a{}", EllipsisError::Range(String::new())),
            ("a{4...1}", EllipsisError::Down("4...1".into())),
            ("a{1...4", EllipsisError::Braces),
            ("a1...4}", EllipsisError::Braces),
            ("a{{1...4}}", EllipsisError::Braces),
            ("a{1...1025}", EllipsisError::Many),
            ("a{1...33}{1...32}", EllipsisError::Many),
            ("a{0...18446744073709551615}", EllipsisError::Many),
            ("a{0...99999999999999999999}", EllipsisError::Range("0...99999999999999999999".into())),
        ] {
            assert_eq!(expand(pattern), Err(error), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn no_pattern_makes_it_panic_or_grow(pattern in "[a-f0-9.{}]{0,24}") {
            if let Ok(urls) = expand(&pattern) {
                prop_assert!((1..=MOST).contains(&urls.len()));
            }
        }
    }
}
