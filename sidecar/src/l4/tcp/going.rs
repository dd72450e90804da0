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
    /// When it was told to move, if it was.
    ordered: Cell<Option<Instant>>,
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
            ordered: Cell::new(None),
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
            self.ordered.set(Some(Instant::now()));
            self.told.notify_one();
        }
    }

    /// It was told to end, and went on: what has moved since then may still be answered.
    pub(super) fn has_gone_on(&self) -> bool {
        self.waits.get() || self.ordered.get().is_some_and(|ordered| self.used.get() > ordered)
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_is_used_between_the_word_to_move_and_its_end_goes_on() {
        let going = Going::at(1);
        advance(Duration::from_secs(60)).await;
        going.end(Cause::Rebalanced);
        assert_eq!((going.told().await, going.has_gone_on()), (Cause::Rebalanced, false));
        advance(Duration::from_millis(1)).await;
        going.used.set(Instant::now());
        assert!(going.has_gone_on(), "an answer may be on its way");
        advance(Duration::from_secs(60)).await;
        going.end(Cause::Rebalanced);
        assert!(!going.has_gone_on(), "it was quiet again");
        going.waits.set(true);
        assert!(going.has_gone_on(), "the client had the last word");
    }
}
