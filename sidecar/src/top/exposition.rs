//! The text that /metrics serves -> samples. Strict: what this program does not write itself is an error with its line, and
//! a page without its end is not taken for a whole one.

use std::borrow::Cow;

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// One line with a value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: Labels<'a>,
    pub(super) value: f64,
}

/// Why a page cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExpositionError {
    #[error("line {line} of the answer is not OpenMetrics text")]
    Line { line: usize },
    #[error("the answer has no `# EOF` at its end")]
    NoEnd,
}

impl<'a> Sample<'a> {
    pub(super) fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(label, _)| *label == name).map(|(_, value)| value.as_ref())
    }
}

/// All samples of a page, in its order.
pub(crate) fn samples(page: &str) -> Result<Vec<Sample<'_>>, ExpositionError> {
    let mut samples = Vec::new();
    for (line, number) in page.lines().zip(1..) {
        if line == "# EOF" {
            return Ok(samples);
        }
        if !line.starts_with('#') {
            samples.push(sample(line).ok_or(ExpositionError::Line { line: number })?);
        }
    }
    Err(ExpositionError::NoEnd)
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == ':'))?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    let value = rest.strip_prefix(' ')?.parse().ok()?;
    (!name.is_empty()).then_some(Sample { name, labels, value })
}

/// Labels after the opening brace, and what follows the closing one.
fn labels(mut rest: &str) -> Option<(Labels<'_>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, tail) = rest.split_once("=\"")?;
        let (value, tail) = quoted(tail)?;
        labels.push((name, value));
        rest = tail.strip_prefix(',').or_else(|| tail.starts_with('}').then_some(tail))?;
    }
}

/// A value up to its closing quote, and what follows it.
fn quoted(text: &str) -> Option<(Cow<'_, str>, &str)> {
    let mut value = String::new();
    let mut escaped = false;
    for (index, character) in text.char_indices() {
        match (escaped, character) {
            (true, 'n') => value.push('\n'),
            (true, '\\' | '"') => value.push(character),
            (true, _) => return None,
            (false, '\\') => {}
            (false, '"') => {
                let raw = &text[..index];
                let value = if raw.contains('\\') { Cow::Owned(value) } else { Cow::Borrowed(raw) };
                return Some((value, &text[index + 1..]));
            }
            (false, _) => value.push(character),
        }
        escaped = !escaped && character == '\\';
    }
    None
}

#[cfg(test)]
mod tests {
    use prometheus_client::{
        encoding::text::encode,
        metrics::{counter::Counter, family::Family, histogram::Histogram},
        registry::Registry,
    };
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_sidecar_writes_is_read() {
        let mut registry = Registry::default();
        let family = Family::<Vec<(String, String)>, Counter>::default();
        let odd = "a \"quoted\\path\"\nand {braces}, commas=\"x\"";
        family
            .get_or_create(&vec![("one".to_owned(), odd.to_owned()), ("two".to_owned(), String::new())])
            .inc_by(7);
        registry.register("requests", "Requests", family);
        let histogram = Histogram::new([0.5]);
        histogram.observe(2.0);
        registry.register("seconds", "Seconds", histogram);
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();

        let samples = samples(&page).unwrap();
        let names: Vec<_> = samples.iter().map(|sample| (sample.name, sample.value)).collect();
        let expected = [
            ("requests_total", 7.0),
            ("seconds_sum", 2.0),
            ("seconds_count", 1.0),
            ("seconds_bucket", 0.0),
            ("seconds_bucket", 1.0),
        ];
        assert_eq!(names, expected);
        assert_eq!((samples[0].label("one"), samples[0].label("two")), (Some(odd), Some("")));
        assert_eq!((samples[4].label("le"), samples[4].label("one")), (Some("+Inf"), None));
    }

    #[test]
    fn what_it_does_not_write_is_refused() {
        assert_eq!(samples("a 1\nb 2\n"), Err(ExpositionError::NoEnd), "cut short");
        for line in
            ["<html>", "a", "a x", "a{b} 1", "a{b=\"c 1", "a{b=\"\\x\"} 1", "a{b=\"c\"d=\"e\"} 1", " 1", ""]
        {
            let page = format!("good 1\n{line}\n# EOF\n");
            assert_eq!(samples(&page), Err(ExpositionError::Line { line: 2 }), "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_page_makes_it_panic(page in "[a-z{}=\",\\\\ \n#EOF0-9.]{0,80}\\PC{0,8}") {
            let _ = samples(&page);
        }
    }
}
