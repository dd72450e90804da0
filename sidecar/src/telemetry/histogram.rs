//! A histogram of durations that is written without a lock: one per thread, added up when it is read.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds in microseconds; beyond the last is +Inf.
const BOUNDS: [u64; 14] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    10_000_000, 60_000_000,
];

/// Counts of durations by size.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    counts: [AtomicU64; BOUNDS.len() + 1],
    microseconds: AtomicU64,
}

/// What some histograms hold together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Totals {
    pub(crate) seconds: f64,
    pub(crate) count: u64,
    /// Upper bound in seconds, and how many are above the bound before it.
    pub(crate) buckets: Vec<(f64, u64)>,
}

impl Histogram {
    pub(crate) fn observe(&self, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.iter().position(|bound| microseconds <= *bound).unwrap_or(BOUNDS.len());
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(microseconds, Ordering::Relaxed);
    }

    pub(crate) fn total<'a>(histograms: impl Iterator<Item = &'a Self>) -> Totals {
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / 1e6).chain([f64::INFINITY]);
        let mut totals = Totals { buckets: bounds.map(|bound| (bound, 0)).collect(), ..Totals::default() };
        for histogram in histograms {
            for (bucket, count) in totals.buckets.iter_mut().zip(&histogram.counts) {
                let count = count.load(Ordering::Relaxed);
                bucket.1 += count;
                totals.count += count;
            }
            totals.seconds += histogram.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_observed_is_in_the_bucket_that_covers_it() {
        let (a, b) = (Histogram::default(), Histogram::default());
        a.observe(Duration::from_micros(500));
        a.observe(Duration::from_micros(501));
        b.observe(Duration::from_secs(100));
        let totals = Histogram::total([&a, &b].into_iter());
        assert_eq!(totals.count, 3);
        assert_eq!(totals.buckets[..2], [(0.0005, 1), (0.001, 1)]);
        assert_eq!(totals.buckets.last(), Some(&(f64::INFINITY, 1)));
        assert!((totals.seconds - 100.001_001).abs() < 1e-9);
    }
}
