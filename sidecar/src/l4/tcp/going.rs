//! What others on the thread know of an open connection, and how it is told to end before its sides do.

use std::{cell::Cell, time::Duration};

use tokio::{sync::Notify, time::Instant};

use crate::l4::metrics::Cause;

pub(super) struct Going {
    /// Id of its backend.
    pub(super) backend: u64,
    /// When something moved last.
    pub(super) used: Cell<Instant>,
    /// The client had the last word, or one side has ended.
    pub(super) waits: Cell<bool>,
    /// A side takes nothing more in, and may not have got all of it. Only looked at where connections are moved.
    pub(super) full: Cell<bool>,
    end: Cell<Option<Cause>>,
    told: Notify,
}

impl Going {
    pub(super) fn at(backend: u64) -> Self {
        Self {
            backend,
            used: Cell::new(Instant::now()),
            waits: Cell::new(false),
            full: Cell::new(false),
            end: Cell::new(None),
            told: Notify::new(),
        }
    }

    /// Nobody waits for an answer, both sides have got all of theirs, and nothing has moved for this time.
    pub(super) fn is_quiet(&self, now: Instant, time: Duration) -> bool {
        !self.waits.get() && !self.full.get() && now.saturating_duration_since(self.used.get()) >= time
    }

    /// Has it end. To be rebalanced is no reason beside another one.
    pub(super) fn end(&self, cause: Cause) {
        if cause != Cause::Rebalanced || self.end.get().is_none() {
            self.end.set(Some(cause));
            self.told.notify_one();
        }
    }

    /// Ready when the connection shall end. It is told once, and may go on if it has to.
    pub(super) async fn told(&self) -> Cause {
        loop {
            if let Some(cause) = self.end.take() {
                return cause;
            }
            self.told.notified().await;
        }
    }
}
