//! One rate limit: GCRA over a [`Table`] of its keys. Time is an argument.
//!
//! Each request moves the time at which its key has its full allowance again by one interval. It is let through while that
//! time is no further off than the burst: one number for each key, and one comparison.

use std::{
    hash::{BuildHasher, RandomState},
    num::NonZeroU32,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::table::Table;

/// Keys of one limit that are told apart at once, about: 256 KiB.
const KEYS: usize = 16 * 1024;

/// A limit on requests, for each key or for all together.
#[derive(Debug)]
pub struct RateLimit {
    /// Nanoseconds from one request to the next.
    interval: u64,
    /// Nanoseconds that requests may be ahead of that.
    ahead: u64,
    start: Instant,
    table: Table,
    hasher: RandomState,
    refused: AtomicU64,
}

/// Too many requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    /// Until the next one is let through.
    pub wait: Duration,
}

impl RateLimit {
    /// Lets `requests` through per `period`, evenly, and `burst` at once after a pause. `keyed`: for each key.
    pub fn new(
        requests: NonZeroU32,
        period: Duration,
        burst: NonZeroU32,
        keyed: bool,
        start: Instant,
    ) -> Self {
        // Rounded up: no more than was asked for, however long it goes on.
        let interval = nanoseconds(period).div_ceil(u64::from(requests.get()));
        Self {
            interval,
            ahead: interval.saturating_mul(u64::from(burst.get() - 1)),
            start,
            table: Table::new(if keyed { KEYS } else { 1 }),
            hasher: RandomState::new(),
            refused: AtomicU64::new(0),
        }
    }

    /// Counts one request of this key.
    pub fn take(&self, key: &[u8], now: Instant) -> Result<(), Exceeded> {
        let now = self.time(now);
        let decide = |full| self.wait(full, now).map(|()| full.max(now).saturating_add(self.interval));
        self.table.replace(self.hash(key), decide).inspect_err(|_| self.refuse())
    }

    /// Whether a request of this key would be let through now; counted is only one that would not be.
    pub fn look(&self, key: &[u8], now: Instant) -> Result<(), Exceeded> {
        self.wait(self.table.state(self.hash(key)), self.time(now)).inspect_err(|_| self.refuse())
    }

    /// One more than the nanoseconds since the start, since 0 stands for a key that is new.
    fn time(&self, now: Instant) -> u64 {
        nanoseconds(now.saturating_duration_since(self.start)).saturating_add(1)
    }

    /// Hashes are of this process alone, so that nobody can choose keys that share a place.
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    fn wait(&self, full: u64, now: u64) -> Result<(), Exceeded> {
        match full.saturating_sub(now).saturating_sub(self.ahead) {
            0 => Ok(()),
            wait => Err(Exceeded { wait: Duration::from_nanos(wait) }),
        }
    }

    fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests that were too many.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn limit(requests: u32, period: Duration, burst: u32) -> (RateLimit, Instant) {
        let [requests, burst] = [requests, burst].map(|number| NonZeroU32::new(number).unwrap());
        let now = Instant::now();
        (RateLimit::new(requests, period, burst, true, now), now)
    }

    #[test]
    fn each_key_has_its_own_allowance_and_is_told_how_long_to_wait() {
        let (limit, start) = limit(10, Duration::from_secs(1), 3);
        let after = |millis| start + Duration::from_millis(millis);
        let wait = |millis| Err(Exceeded { wait: Duration::from_millis(millis) });
        for key in [b"a", b"b"] {
            assert!((0..3).all(|_| limit.take(key, start).is_ok()));
            assert_eq!(limit.take(key, start), wait(100));
        }
        assert_eq!(limit.take(b"a", after(60)), wait(40));
        assert_eq!(limit.take(b"a", after(100)), Ok(()));
        assert_eq!(limit.take(b"a", after(100)), wait(100));
        assert_eq!(limit.refused(), 4);
        assert!(
            (0..3).all(|_| limit.take(b"a", after(10_000)).is_ok()),
            "a pause brings no more than the burst"
        );
        assert_eq!(limit.take(b"a", after(10_000)), wait(100));
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_than_the_burst_and_the_rate_are_let_through(
            requests in 1u32..100, burst in 1u32..50, gaps in prop::collection::vec(0u64..40, 1..400),
        ) {
            let (limit, start) = limit(requests, Duration::from_secs(1), burst);
            let (mut passed, mut elapsed) = (Vec::new(), 0u64);
            for gap in gaps {
                elapsed += gap;
                if limit.take(b"k", start + Duration::from_millis(elapsed)).is_ok() {
                    passed.push(elapsed);
                }
            }
            for (first, since) in passed.iter().enumerate() {
                for (last, until) in passed.iter().enumerate().skip(first) {
                    let most = u64::from(burst) + (until - since) * u64::from(requests) / 1000;
                    let count = (last - first + 1) as u64;
                    prop_assert!(count <= most, "{} of {} from {} to {}", count, most, since, until);
                }
            }
        }

        #[test]
        fn whoever_waits_as_told_is_let_through(requests in 1u32..1000, burst in 1u32..50) {
            let (limit, mut now) = limit(requests, Duration::from_secs(60), burst);
            for _ in 0..burst * 2 {
                if let Err(Exceeded { wait }) = limit.take(b"k", now) {
                    now += wait;
                    prop_assert_eq!(limit.take(b"k", now), Ok(()));
                }
            }
        }

        #[test]
        fn no_settings_let_nothing_or_all_through(requests in 1u32..=1_000_000, burst in 1u32..=100_000) {
            let (limit, start) = limit(requests, Duration::from_secs(24 * 3600), burst);
            let tried = burst + 1;
            let passed = (0..tried).filter(|_| limit.take(b"k", start).is_ok()).count();
            prop_assert_eq!(passed, burst as usize);
        }
    }

    proptest! {
        #[test]
        fn more_keys_than_there_is_room_for_give_none_a_new_allowance(
            others in prop::collection::vec(any::<u64>(), 0..2_000), burst in 1u32..4,
        ) {
            let number = |number| NonZeroU32::new(number).unwrap();
            let now = Instant::now();
            let mut limit = RateLimit::new(number(1), Duration::from_secs(3600), number(burst), true, now);
            limit.table = Table::new(64);
            let mut passed = 0;
            for other in &others {
                passed += u32::from(limit.take(b"busy", now).is_ok());
                let _ = limit.take(&other.to_ne_bytes(), now);
            }
            prop_assert!(passed <= burst, "{}", passed);
        }
    }

    #[test]
    fn a_rate_that_does_not_divide_a_second_is_not_exceeded_in_the_long_run() {
        let (limit, start) = limit(999_983, Duration::from_secs(1), 1);
        let after = |micros| start + Duration::from_micros(micros);
        let passed = (0..100_000).filter(|micros| limit.take(b"k", after(*micros)).is_ok()).count();
        assert!(passed <= 99_999, "{passed}");
    }

    #[test]
    fn a_look_counts_nothing() {
        let (limit, now) = limit(1, Duration::from_secs(1), 1);
        assert!((0..3).all(|_| limit.look(b"a", now).is_ok()));
        assert_eq!(limit.take(b"a", now), Ok(()));
        assert_eq!(limit.look(b"a", now), Err(Exceeded { wait: Duration::from_secs(1) }));
        assert_eq!(limit.refused(), 1);
    }

    #[test]
    fn a_limit_without_keys_counts_all_together() {
        let number = |number| NonZeroU32::new(number).unwrap();
        let now = Instant::now();
        let limit = RateLimit::new(number(1), Duration::from_secs(3600), number(2), false, now);
        assert!([b"", b""].iter().all(|key| limit.take(*key, now).is_ok()));
        assert!(limit.take(b"", now).is_err());
    }
}
