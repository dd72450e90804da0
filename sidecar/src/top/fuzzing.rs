//! What is promised of a page of metrics and of what is shown of it, whoever wrote it; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use std::time::Duration;

use super::{
    exposition::samples,
    reading::Reading,
    report::{Count, Report, Traffic},
    table::{Size, plain, table, title},
    text::width,
};

/// A page is read or refused, and what is shown of it stays on the screen.
pub fn page(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(read) = samples(text) else { return assert!(Reading::parse(text).is_err()) };
    assert!(read.len() < text.lines().count(), "its end is none of them");
    let (nothing, reading) = (Reading::default(), Reading::parse(text).unwrap());
    for earlier in [None, Some(&nothing), Some(&reading)] {
        let report = Report::new(earlier.map(|earlier| (earlier, Duration::from_secs(2))), &reading);
        adds_up(&report);
        assert!(serde_json::to_string(&report).is_ok());
        for (columns, rows) in [(0, 0), (20, 3), (80, 24), (usize::MAX, usize::MAX)] {
            fits(&report, Size { columns, rows });
        }
    }
}

/// All together are no fewer than each.
fn adds_up(report: &Report) {
    let counts = |traffic: &Traffic| {
        [traffic.requests, traffic.failures, traffic.retries, traffic.sent_bytes, traffic.received_bytes]
    };
    let no_less = |all: &Traffic, part: &Traffic| {
        let (all, part) = (counts(all), counts(part));
        assert!(all.iter().zip(part).all(|(all, part)| all.total >= part.total), "{all:?} and {part:?}");
        assert!(all.iter().all(|count: &Count| count.per_second.is_none_or(|rate| rate >= 0.0)), "{all:?}");
    };
    for listener in &report.listeners {
        no_less(&report.totals, &listener.traffic);
        for backend in listener.sites.iter().flat_map(|site| &site.backends) {
            let (of_listener, of_backend) = (&listener.traffic.requests, &backend.traffic.requests);
            assert!(of_listener.total >= of_backend.total, "{listener:?}");
        }
    }
}

/// Nothing is wider or lower than the screen, or moves the cursor.
fn fits(report: &Report, size: Size) {
    let shown = table(report, size, 1);
    assert!(shown.lines.len() <= size.rows && shown.shown <= shown.all);
    let title = title(report, "http://127.0.0.1:15470", size.columns);
    for line in [title].iter().chain(&shown.lines) {
        let line = plain(line);
        assert!(width(&line) <= size.columns && !line.contains(char::is_control), "{line:?}");
    }
}
