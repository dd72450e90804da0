//! How long a backend has been down: in all, and the last time. One task writes, scrapes read.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Milliseconds throughout, since `origin` where they are a time.
#[derive(Debug)]
pub(super) struct Downtime {
    origin: Instant,
    /// Of the spans that are over.
    total: AtomicU64,
    last: AtomicU64,
    /// When the span that goes on began; [`UP`] for none.
    since: AtomicU64,
}

const UP: u64 = u64::MAX;

impl Downtime {
    pub(super) fn new(now: Instant) -> Self {
        Self { origin: now, total: AtomicU64::new(0), last: AtomicU64::new(0), since: AtomicU64::new(UP) }
    }

    /// Takes in what the backend is from now on; the same again changes nothing.
    pub(super) fn turn(&self, down: bool, now: Instant) {
        let since = self.since.load(Ordering::Relaxed);
        if down && since == UP {
            self.since.store(self.at(now), Ordering::Relaxed);
        } else if !down && since != UP {
            let span = self.at(now).saturating_sub(since);
            self.last.store(span, Ordering::Relaxed);
            self.total.fetch_add(span, Ordering::Relaxed);
            self.since.store(UP, Ordering::Relaxed);
        }
    }

    /// All spans up to now.
    pub(super) fn total(&self, now: Instant) -> Duration {
        Duration::from_millis(self.total.load(Ordering::Relaxed)) + self.going_on(now).unwrap_or_default()
    }

    /// The span that goes on, or else the last one; `None` if there was none.
    pub(super) fn last(&self, now: Instant) -> Option<Duration> {
        let over = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.going_on(now).or_else(|| (!over.is_zero()).then_some(over))
    }

    fn going_on(&self, now: Instant) -> Option<Duration> {
        let since = self.since.load(Ordering::Relaxed);
        (since != UP).then(|| Duration::from_millis(self.at(now).saturating_sub(since)))
    }

    fn at(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.origin).as_millis()).unwrap_or(UP - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_add_up_and_the_one_that_goes_on_counts() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let downtime = Downtime::new(start);
        assert_eq!((downtime.total(at(9)), downtime.last(at(9))), (Duration::ZERO, None));
        downtime.turn(true, at(10));
        downtime.turn(true, at(11));
        assert_eq!(downtime.total(at(13)), Duration::from_secs(3));
        downtime.turn(false, at(15));
        downtime.turn(false, at(16));
        assert_eq!(
            (downtime.total(at(20)), downtime.last(at(20))),
            (Duration::from_secs(5), Some(Duration::from_secs(5)))
        );
        downtime.turn(true, at(20));
        assert_eq!(
            (downtime.total(at(21)), downtime.last(at(21))),
            (Duration::from_secs(6), Some(Duration::from_secs(1)))
        );
    }
}
