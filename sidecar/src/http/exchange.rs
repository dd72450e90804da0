//! One request under way: what it occupies, and what is counted when it has ended, however it ends.

use std::{
    rc::Rc,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{
    h1::Upload,
    metrics::Counters,
    pool::{Connection, Pool},
    thread::Thread,
};
use crate::balance::{Busy, Outcome};

/// A request between its head and the end of its answer.
pub(super) struct Inflight {
    thread: Rc<Thread>,
    started: Instant,
}

/// A request that a backend has begun to answer. Dropping it closes the connection.
pub(super) struct Exchange {
    pub(super) pool: Rc<Pool>,
    pub(super) connection: Connection,
    pub(super) busy: Busy<Counters>,
    /// What the try comes to if its answer is complete, and the time that the head took.
    pub(super) outcome: Outcome,
    pub(super) latency: Duration,
}

impl Inflight {
    /// `started`: when its head had been read.
    pub(super) fn start(thread: &Rc<Thread>, started: Instant) -> Self {
        thread.counters.requests.fetch_add(1, Ordering::Relaxed);
        Self { thread: Rc::clone(thread), started }
    }

    /// The answer is complete.
    pub(super) fn finish(self) {
        self.thread.counters.durations.observe(self.started.elapsed());
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.thread.counters.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Exchange {
    pub(super) fn answered(&self, status: u16) {
        self.busy.backend().detail.answered(status);
    }

    /// How the try has ended: told once, and not at all when the client has gone.
    pub(super) fn observe(&self, outcome: Outcome) {
        self.busy.backend().observe(outcome, self.latency);
    }

    /// Counts the bytes of both bodies.
    pub(super) fn count(&self, upload: &Upload, received: u64) {
        let counters = &self.busy.backend().detail;
        if received > 0 {
            counters.received.fetch_add(received, Ordering::Relaxed);
        }
        if upload.bytes() > 0 {
            counters.sent.fetch_add(upload.bytes(), Ordering::Relaxed);
        }
    }

    /// The answer is complete: the connection may serve another request.
    pub(super) fn finish(self, reusable: bool) {
        self.observe(self.outcome);
        let Self { pool, connection, busy, .. } = self;
        drop(busy);
        if reusable {
            pool.put(connection, Instant::now());
        }
    }
}
