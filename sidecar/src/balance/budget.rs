//! How many requests may be sent a second time: a fifth of the recent ones, and a few each second whatever the traffic, so
//! that retries never multiply an overload. Only retries of what may have reached a backend are counted.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// Requests that pay for one retry.
const PRICE: i64 = 5;

/// Most retries that can be saved up: the burst that the death of a busy backend may cause.
const SAVED: i64 = 500;

/// Retries each second that cost nothing.
const FREE_PER_SECOND: u64 = 10;

/// Shared by all threads of a listener.
#[derive(Debug)]
pub struct RetryBudget {
    balance: AtomicI64,
    start: Instant,
    /// Milliseconds since `start` up to which the free retries were given out.
    granted: AtomicU64,
}

impl RetryBudget {
    pub fn new(now: Instant) -> Self {
        Self { balance: AtomicI64::new(SAVED * PRICE), start: now, granted: AtomicU64::new(0) }
    }

    /// A request came in. While nothing is retried this is one read.
    pub fn deposit(&self) {
        if self.balance.load(Ordering::Relaxed) < SAVED * PRICE {
            self.balance.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether one more retry is allowed; if so it is paid for.
    pub fn withdraw(&self, now: Instant) -> bool {
        self.grant(now);
        let paid = |balance: i64| (balance >= PRICE).then(|| balance - PRICE);
        self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid).is_ok()
    }

    fn grant(&self, now: Instant) {
        let step = Duration::from_secs(1).as_millis() as u64 / FREE_PER_SECOND;
        let elapsed = now.saturating_duration_since(self.start).as_millis() as u64;
        let granted = self.granted.load(Ordering::Relaxed);
        let free = elapsed.saturating_sub(granted) / step;
        if free == 0 {
            return;
        }
        let taken = self.granted.compare_exchange(
            granted,
            granted + free * step,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
        if taken.is_ok() {
            let free = (free.min(FREE_PER_SECOND) as i64) * PRICE;
            let add = |balance: i64| Some((balance + free).min(SAVED * PRICE));
            let _ = self.balance.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn spent(now: Instant) -> RetryBudget {
        let budget = RetryBudget::new(now);
        while budget.withdraw(now) {}
        budget
    }

    #[test]
    fn a_burst_is_bounded() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        assert_eq!((0..10_000).filter(|_| budget.withdraw(now)).count() as i64, SAVED);
    }

    #[test]
    fn a_few_retries_each_second_are_free() {
        let now = Instant::now();
        let budget = spent(now);
        let later = now + Duration::from_secs(1);
        assert_eq!((0..100).filter(|_| budget.withdraw(later)).count() as u64, FREE_PER_SECOND);
        let much_later = now + Duration::from_secs(100);
        assert_eq!((0..100).filter(|_| budget.withdraw(much_later)).count() as u64, FREE_PER_SECOND);
    }

    proptest! {
        #[test]
        fn retries_are_a_fifth_of_requests(requests in 0i64..2_000) {
            let now = Instant::now();
            let budget = spent(now);
            for _ in 0..requests {
                budget.deposit();
            }
            prop_assert_eq!((0..5_000).filter(|_| budget.withdraw(now)).count() as i64, requests / PRICE);
        }
    }
}
