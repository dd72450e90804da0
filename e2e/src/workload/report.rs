//! What a load has seen so far. Counts only grow, so the difference of two reports speaks of the time between them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use http::StatusCode;
use serde::{Deserialize, Serialize};

/// Failures kept with their text; more are only counted.
const MAX_FAILURES: usize = 10;
/// Names counted one by one; the answers of further ones are counted as `others`.
const MAX_NAMES: usize = 256;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Since the first request was sent, in milliseconds.
    pub elapsed_ms: u64,
    /// Requests that have ended, well or not.
    pub requests: u64,
    /// Requests without an answer, or with a status that is not 2xx.
    pub failed: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Good answers by their body, which is the name of the pod that gave it.
    pub backends: BTreeMap<String, u64>,
    /// The first failures.
    pub failures: Vec<Failure>,
    /// The longest time without a good answer, in milliseconds.
    pub max_gap_ms: u64,
    /// The slowest good answer, in milliseconds.
    pub max_latency_ms: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// When it happened, in milliseconds since the first request.
    pub at_ms: u64,
    pub text: String,
}

impl Report {
    /// Good answers by backend that came after `earlier` was made.
    pub fn backends_since(&self, earlier: &Self) -> BTreeMap<String, u64> {
        self.backends
            .iter()
            .map(|(name, count)| {
                (name.clone(), count - earlier.backends.get(name).copied().unwrap_or(0).min(*count))
            })
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// Writes a report as answers come in.
#[derive(Debug)]
pub(super) struct Recorder {
    began: Instant,
    last_good: Instant,
    report: Report,
}

impl Recorder {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self { began: now, last_good: now, report: Report::default() }
    }

    pub(super) fn answer(&mut self, status: StatusCode, body: &str, latency: Duration) {
        *self.report.statuses.entry(status.as_u16()).or_default() += 1;
        if !status.is_success() {
            return self.failure(format!("{status}: {body}"));
        }
        self.report.requests += 1;
        let names = &mut self.report.backends;
        let name = if names.len() < MAX_NAMES || names.contains_key(body) { body } else { "others" };
        *names.entry(name.to_owned()).or_default() += 1;
        self.report.max_latency_ms = self.report.max_latency_ms.max(milliseconds(latency));
        self.report.max_gap_ms = self.report.max_gap_ms.max(milliseconds(self.last_good.elapsed()));
        self.last_good = Instant::now();
    }

    pub(super) fn failure(&mut self, text: String) {
        self.report.requests += 1;
        self.report.failed += 1;
        if self.report.failures.len() < MAX_FAILURES {
            self.report.failures.push(Failure { at_ms: milliseconds(self.began.elapsed()), text });
        }
    }

    /// The report up to now, with the gap that is still open.
    pub(super) fn report(&self) -> Report {
        let mut report = self.report.clone();
        report.elapsed_ms = milliseconds(self.began.elapsed());
        report.max_gap_ms = report.max_gap_ms.max(milliseconds(self.last_good.elapsed()));
        report
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_status_is_a_failure_and_no_backend() {
        let mut recorder = Recorder::new();
        recorder.answer(StatusCode::OK, "one", Duration::from_millis(3));
        let earlier = recorder.report();
        recorder.answer(StatusCode::OK, "two", Duration::from_millis(7));
        recorder.answer(StatusCode::SERVICE_UNAVAILABLE, "no backend", Duration::ZERO);
        let report = recorder.report();
        assert_eq!((report.requests, report.failed, report.max_latency_ms), (3, 1, 7));
        assert_eq!(report.statuses, BTreeMap::from([(200, 2), (503, 1)]));
        assert!(report.failures[0].text.contains("no backend"), "{report:?}");
        assert_eq!(report.backends_since(&earlier), BTreeMap::from([("two".to_owned(), 1)]));
    }
}
