//! What the backends of one listener share: the rules that their counters are held against, and the way to the task that
//! writes the route.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::Rules;

/// Read on the data path, written when the rules change.
#[derive(Debug)]
pub(super) struct Shared {
    /// See [`Streak`](super::outcome::Streak).
    pub(super) clock: AtomicU64,
    /// Told when a backend has failed as often in a row as the rules allow.
    pub(super) outlier: Notify,
    /// Requests that were given out in turn so far.
    pub(super) turns: AtomicUsize,
    /// Failures in a row; 0 where they are not counted.
    allowed_failures: AtomicU32,
    /// Whether latencies are of use to anyone.
    measures: AtomicBool,
    max_connections: AtomicUsize,
    max_pending: AtomicUsize,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            clock: AtomicU64::new(0),
            outlier: Notify::new(),
            turns: AtomicUsize::new(0),
            allowed_failures: AtomicU32::new(0),
            measures: AtomicBool::new(false),
            max_connections: AtomicUsize::new(usize::MAX),
            max_pending: AtomicUsize::new(usize::MAX),
        }
    }
}

impl Shared {
    pub(super) fn adopt(&self, rules: &Rules) {
        self.allowed_failures.store(rules.ejection.errors, Ordering::Relaxed);
        self.measures.store(rules.measures(), Ordering::Relaxed);
        self.max_connections.store(rules.limits.connections, Ordering::Relaxed);
        self.max_pending.store(rules.limits.pending, Ordering::Relaxed);
    }

    /// Tells of a row of failures, once for as many as the rules allow, so that one who fails on does not keep the task busy.
    pub(super) fn failed(&self, in_a_row: u32) {
        let allowed = self.allowed_failures.load(Ordering::Relaxed);
        if allowed != 0 && in_a_row.is_multiple_of(allowed) {
            self.outlier.notify_one();
        }
    }

    pub(super) fn measures(&self) -> bool {
        self.measures.load(Ordering::Relaxed)
    }

    pub(super) fn max_connections(&self) -> usize {
        self.max_connections.load(Ordering::Relaxed)
    }

    pub(super) fn max_pending(&self) -> usize {
        self.max_pending.load(Ordering::Relaxed)
    }
}
