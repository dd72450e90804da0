//! What tries have shown of a backend: failures in a row, and whether others have done better meanwhile.
//!
//! "Meanwhile" is told by a logical clock that the backends of a listener share: it moves on when a row of failures begins,
//! and a good answer leaves the clock's reading behind. No time is read, and on a good answer nothing is written that was
//! not different before.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// How a try of a request has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A whole answer that is not the backend's fault, whatever its status: 501 is one.
    Good,
    /// A whole answer with a status from 500 on that is the backend's fault.
    ServerError,
    /// The backend asks for fewer requests, as with 429 or S3's SlowDown. Never a fault.
    Throttled,
    /// No connection, for a reason that lies with the backend.
    ConnectFailed,
    /// The connection broke before the end of the answer. Not for one that was used before and broke without a byte of
    /// the answer, as happens when servers close idle connections.
    Broken,
    TimedOut,
    /// The client or the sidecar gave up. Never a fault.
    ClientAborted,
}

/// The outcomes of one backend.
#[derive(Debug, Default)]
pub(super) struct Streak {
    /// Failures in a row.
    failures: AtomicU32,
    /// The clock's reading when the row began.
    began: AtomicU64,
    /// The clock's reading at the last good answer.
    good: AtomicU64,
}

impl Streak {
    pub(super) fn succeed(&self, clock: &AtomicU64) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
        let now = clock.load(Ordering::Relaxed);
        if self.good.load(Ordering::Relaxed) != now {
            self.good.store(now, Ordering::Relaxed);
        }
    }

    /// Gives the failures in a row.
    pub(super) fn fail(&self, clock: &AtomicU64) -> u32 {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            self.began.store(clock.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
        }
        before.saturating_add(1)
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Whether this backend has given a good answer since the other's row of failures began.
    pub(super) fn was_good_during(&self, other: &Self) -> bool {
        self.failures() == 0 && self.good.load(Ordering::Relaxed) >= other.began.load(Ordering::Relaxed)
    }

    pub(super) fn forget(&self) {
        self.failures.store(0, Ordering::Relaxed);
    }
}

/// Longest latency that counts.
const LONGEST: Duration = Duration::from_secs(60);

/// An estimate of the time that the backend takes for the head of a response: it rises at once to each longer one, and falls
/// slowly, by [`decay`](Self::decay). A row of errors, which are often quick, never makes a backend look fast.
#[derive(Debug, Default)]
pub(super) struct Latency {
    /// Microseconds; 0 is unknown.
    estimate: AtomicU64,
    /// Microseconds of the last sample since the last decay; 0 is none.
    last: AtomicU64,
}

impl Latency {
    pub(super) fn sample(&self, latency: Duration) {
        self.take_in(micros(latency));
    }

    /// A failure counts as twice the estimate, or as the time that it took if that is longer.
    pub(super) fn fail(&self, latency: Duration) {
        self.take_in(self.micros().saturating_mul(2).clamp(micros(latency), micros(LONGEST)));
    }

    /// Microseconds, at least 1.
    pub(super) fn micros(&self) -> u64 {
        self.estimate.load(Ordering::Relaxed).max(1)
    }

    /// An estimate to begin with, in microseconds; 0 for none.
    pub(super) fn assumed(micros: u64) -> Self {
        Self { estimate: AtomicU64::new(micros), last: AtomicU64::new(0) }
    }

    /// Lets the estimate fall towards the last sample, or towards 0 without one. `kept` is the share of the difference that
    /// is left. One task calls it.
    pub(super) fn decay(&self, kept: f64) {
        let last = self.last.swap(0, Ordering::Relaxed);
        let before = self.estimate.load(Ordering::Relaxed);
        if before > last {
            let after = last + ((before - last) as f64 * kept) as u64;
            // A longer one that came just now stays.
            let _ = self.estimate.compare_exchange(before, after, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    fn take_in(&self, micros: u64) {
        if micros > self.estimate.load(Ordering::Relaxed) {
            self.estimate.fetch_max(micros, Ordering::Relaxed);
        }
        self.last.store(micros, Ordering::Relaxed);
    }
}

fn micros(latency: Duration) -> u64 {
    latency.min(LONGEST).as_micros().max(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_success_ends_a_row_of_failures() {
        let (clock, streak) = (AtomicU64::default(), Streak::default());
        assert_eq!((1..=4).map(|_| streak.fail(&clock)).max(), Some(4));
        streak.succeed(&clock);
        assert_eq!(streak.failures(), 0);
        assert_eq!(streak.fail(&clock), 1);
    }

    #[test]
    fn only_a_good_answer_given_meanwhile_counts_as_doing_better() {
        let clock = AtomicU64::default();
        let [bad, before, during, failing] = [(); 4].map(|()| Streak::default());
        before.succeed(&clock);
        bad.fail(&clock);
        assert!(!before.was_good_during(&bad), "its good answer is older than the failures");
        during.succeed(&clock);
        assert!(during.was_good_during(&bad));
        failing.succeed(&clock);
        failing.fail(&clock);
        assert!(!failing.was_good_during(&bad), "it fails too");
    }

    #[test]
    fn a_latency_rises_at_once_and_falls_slowly() {
        let latency = Latency::default();
        latency.sample(Duration::from_millis(1));
        latency.sample(Duration::from_millis(100));
        assert_eq!(latency.micros(), 100_000);
        latency.sample(Duration::from_millis(1));
        assert_eq!(latency.micros(), 100_000);
        latency.decay(0.5);
        assert_eq!(latency.micros(), 50_500, "half way to the last sample");
        latency.decay(0.5);
        assert_eq!(latency.micros(), 25_250, "half way to nothing, while nothing is asked");
    }

    #[test]
    fn a_quick_failure_makes_no_backend_look_fast() {
        let latency = Latency::default();
        latency.sample(Duration::from_millis(10));
        latency.fail(Duration::from_micros(5));
        assert_eq!(latency.micros(), 20_000);
        latency.decay(0.0);
        assert_eq!(latency.micros(), 20_000);
        for _ in 0..100 {
            latency.fail(Duration::from_micros(5));
        }
        assert_eq!(latency.micros(), micros(LONGEST));
    }
}
