//! Clients that wait because every backend has as many connections as it may: first come, first served.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, futures::Notified};

/// Shared by the threads of one listener.
#[derive(Debug, Default)]
pub(in crate::l4) struct Queue {
    waiting: AtomicUsize,
    freed: Notify,
}

/// A client's place in the queue.
pub(super) struct Place<'a>(&'a Queue);

impl Queue {
    /// A place at the end; none if `most` wait already.
    pub(super) fn enter(&self, most: usize) -> Option<Place<'_>> {
        // Counts before it asks, so that two threads never take the last place both.
        let full = self.waiting.fetch_add(1, Ordering::Relaxed) >= most;
        let place = Place(self);
        (!full).then_some(place)
    }

    /// Clients that wait.
    pub(in crate::l4) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A connection has ended, or there are other backends: the first one may look.
    pub(super) fn freed(&self) {
        if self.waiting() > 0 {
            self.freed.notify_one();
        }
    }

    /// Everybody may look.
    pub(super) fn changed(&self) {
        self.freed.notify_waiters();
    }
}

impl Place<'_> {
    /// Ready when it is this one's turn to look. To be enabled before looking, so that no turn is lost.
    pub(super) fn turn(&self) -> Notified<'_> {
        self.0.freed.notified()
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}
