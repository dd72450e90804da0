//! One request under way: what it occupies, and what is counted when it has ended, however it ends.

use std::{
    error::Error,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use super::{
    body::Upload,
    client::Client,
    metrics::Counters,
    pool::{Connection, Pool},
    thread::Thread,
};
use crate::balance::Busy;

/// A request between its head and the end of its answer.
pub(super) struct Inflight {
    thread: Rc<Thread>,
    client: Arc<Client>,
    pub(super) started: Instant,
}

/// A request that a backend has begun to answer.
pub(super) struct Exchange {
    pub(super) inflight: Inflight,
    pub(super) pool: Rc<Pool>,
    /// None once it is back in the pool.
    pub(super) connection: Option<Connection>,
    pub(super) busy: Busy<Counters>,
    pub(super) upload: Option<Rc<Upload>>,
    pub(super) received: u64,
}

impl Inflight {
    pub(super) fn start(thread: &Rc<Thread>, client: &Arc<Client>) -> Self {
        thread.counters.requests.fetch_add(1, Ordering::Relaxed);
        client.request_begins();
        Self { thread: Rc::clone(thread), client: Arc::clone(client), started: Instant::now() }
    }
}

impl Drop for Inflight {
    fn drop(&mut self) {
        self.thread.counters.requests.fetch_sub(1, Ordering::Relaxed);
        self.client.request_ends();
    }
}

impl Exchange {
    /// The answer is complete. The connection is good for another request if the backend has taken the whole request.
    pub(super) fn finish(mut self) {
        let now = Instant::now();
        self.inflight.thread.counters.durations.observe(now - self.inflight.started);
        let taken = self.upload.as_ref().is_none_or(|upload| upload.is_complete());
        if let Some(connection) = self.connection.take_if(|_| taken) {
            self.pool.put(connection, now);
        }
    }

    /// The answer broke off: the client must see that it did.
    pub(super) fn fail(self, error: &(dyn Error + 'static)) {
        let address = &self.busy.backend().address;
        tracing::debug!(%address, error, "a backend's answer broke off");
        self.inflight.client.abort();
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let counters = &self.busy.backend().detail;
        if self.received > 0 {
            counters.received.fetch_add(self.received, Ordering::Relaxed);
        }
        if let Some(upload) = &self.upload {
            counters.sent.fetch_add(upload.bytes(), Ordering::Relaxed);
        }
    }
}
