//! Numbers and names as people read them in a table. Pure.

use unicode_width::UnicodeWidthStr;

/// What stands where nothing is known.
pub(super) const UNKNOWN: &str = "-";

pub(super) fn count(value: u64) -> String {
    if value < 100_000 {
        value.to_string()
    } else {
        scaled(value as f64, 1000.0, &["", "k", "M", "G", "T", "P"], "")
    }
}

pub(super) fn rate(per_second: Option<f64>) -> String {
    per_second.map_or_else(|| UNKNOWN.to_owned(), |rate| scaled(rate, 1000.0, &["", "k", "M", "G"], ""))
}

pub(super) fn bytes(per_second: Option<f64>) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    per_second.map_or_else(|| UNKNOWN.to_owned(), |rate| scaled(rate, 1024.0, &units, " "))
}

/// Three digits, or fewer where they say nothing.
fn scaled(mut value: f64, step: f64, units: &[&str], gap: &str) -> String {
    let mut unit = 0;
    while value >= step - 0.5 && unit + 1 < units.len() {
        value /= step;
        unit += 1;
    }
    let digits = usize::from(value < 9.95 && value > 0.0);
    format!("{value:.digits$}{gap}{}", units[unit])
}

pub(super) fn latency(seconds: Option<f64>) -> String {
    match seconds {
        None => UNKNOWN.to_owned(),
        Some(seconds) if seconds < 0.001 => format!("{:.0} us", seconds * 1e6),
        Some(seconds) if seconds < 0.009_95 => format!("{:.1} ms", seconds * 1e3),
        Some(seconds) if seconds < 0.999_5 => format!("{:.0} ms", seconds * 1e3),
        Some(seconds) if seconds < 9.95 => format!("{seconds:.1} s"),
        Some(seconds) => format!("{seconds:.0} s"),
    }
}

/// The two largest units of a time without traffic: `4.2s`, `3m05s`, `2h10m`, `5d04h`.
pub(super) fn span(seconds: Option<f64>) -> String {
    let Some(seconds) = seconds else { return UNKNOWN.to_owned() };
    let whole = seconds as u64;
    match whole {
        0..10 if seconds > 0.0 => format!("{seconds:.1}s"),
        0..60 => format!("{whole}s"),
        60..3_600 => format!("{}m{:02}s", whole / 60, whole % 60),
        3_600..86_400 => format!("{}h{:02}m", whole / 3_600, whole % 3_600 / 60),
        _ => format!("{}d{:02}h", whole / 86_400, whole % 86_400 / 3_600),
    }
}

/// A name from outside, so that it cannot move the cursor or colour what follows.
pub(super) fn harmless(name: &str) -> String {
    name.chars().map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// Cells that a text takes on a terminal.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// The text in at most that many cells, with `…` where something is left out.
pub(super) fn cut(text: &str, cells: usize) -> String {
    if width(text) <= cells {
        return text.to_owned();
    }
    let mut cut = String::new();
    for character in text.chars() {
        let end = cut.len();
        cut.push(character);
        // Measured together, since a character may make the one before it wider.
        if width(&cut) >= cells {
            cut.truncate(end);
            break;
        }
    }
    if cells > 0 {
        cut.push('…');
    }
    cut
}

/// The text on as many lines as it needs, broken between words where it can be.
pub(super) fn wrap(text: &str, cells: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let room = lines.last().map_or(0, |line| cells.saturating_sub(width(line) + 1));
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&cut(word, cells)),
            Some(line) if width(word) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(cut(word, cells)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_are_short_and_keep_their_size() {
        for (value, text) in
            [(0.0, "0"), (0.34, "0.3"), (9.96, "10"), (999.0, "999"), (999.6, "1.0k"), (45_300.0, "45k")]
        {
            assert_eq!(rate(Some(value)), text);
        }
        for (value, text) in [(0.0, "0 B"), (1023.0, "1023 B"), (1536.0, "1.5 KiB"), (1e10, "9.3 GiB")] {
            assert_eq!(bytes(Some(value)), text);
        }
        for (value, text) in [(0, "0"), (99_999, "99999"), (100_000, "100k"), (u64::MAX, "18447P")] {
            assert_eq!(count(value), text);
        }
        for (seconds, text) in
            [(0.000_25, "250 us"), (0.0042, "4.2 ms"), (0.25, "250 ms"), (2.5, "2.5 s"), (60.0, "60 s")]
        {
            assert_eq!(latency(Some(seconds)), text);
        }
        for (seconds, text) in [
            (0.0, "0s"),
            (4.25, "4.2s"),
            (59.9, "59s"),
            (185.0, "3m05s"),
            (7_800.0, "2h10m"),
            (446_400.0, "5d04h"),
        ] {
            assert_eq!(span(Some(seconds)), text);
        }
    }

    #[test]
    fn a_name_cannot_write_to_the_terminal() {
        assert_eq!(harmless("a\u{1b}[2Jb\r\n\u{9b}c"), "a?[2Jb???c");
    }

    #[test]
    fn a_long_text_is_broken_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("indivisible", 5), ["indi…"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn signs_that_are_wider_together_are_cut_to_measure_too() {
        for cells in 0..8 {
            assert!(width(&cut("\u{263a}\u{fe0f}\u{263a}\u{fe0f}\u{263a}\u{fe0f}", cells)) <= cells);
        }
    }

    proptest! {
        #[test]
        fn a_cut_text_is_never_too_wide(text in "\\PC{0,20}", cells in 0usize..12) {
            prop_assert!(width(&cut(&text, cells)) <= cells);
        }
    }
}
