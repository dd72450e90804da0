//! Requests to cancel, each to the server that runs the query: keys are learned as servers give them to their clients, and are
//! known for as long as those connections are open.
//!
//! A key is learned before its client has it, so that no request comes too early. The map is locked when a connection begins and
//! when it ends, and for a request; never while bytes move.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout_at},
};

use crate::{
    balance::Backend,
    l4::metrics::Counters,
    net::{
        self,
        postgres::{Answers, CancelKey, NO},
    },
};

/// Keys that one listener knows. Connections beyond it cannot be cancelled.
const MOST: usize = 1 << 17;

/// What is known of the connections of one listener, on all threads.
#[derive(Default)]
pub(super) struct CancelKeys {
    known: Mutex<Known>,
    /// The server that was asked for TLS last has said no.
    refuses_tls: AtomicBool,
}

#[derive(Default)]
struct Known {
    issuers: HashMap<CancelKey, Issuer>,
    /// Tells apart who has the same key.
    next: u64,
}

struct Issuer {
    backend: Arc<Backend<Counters>>,
    number: u64,
}

/// A key that is known for as long as this lives.
struct Issued {
    keys: Arc<CancelKeys>,
    key: CancelKey,
    number: u64,
}

/// Sees what a server says at the beginning.
pub(super) struct Learner {
    answers: Answers,
    keys: Arc<CancelKeys>,
    backend: Arc<Backend<Counters>>,
    issued: Option<Issued>,
}

impl CancelKeys {
    /// The server that has given the key to a client.
    pub(super) fn issuer(&self, key: &CancelKey) -> Option<Arc<Backend<Counters>>> {
        self.known().issuers.get(key).map(|issuer| Arc::clone(&issuer.backend))
    }

    /// What a server has answered to a request for TLS.
    pub(super) fn answered(&self, answer: u8) {
        self.refuses_tls.store(answer == NO, Ordering::Relaxed);
    }

    /// Whether the next one would say no, as far as one can tell.
    pub(super) fn servers_refuse_tls(&self) -> bool {
        self.refuses_tls.load(Ordering::Relaxed)
    }

    fn issue(self: &Arc<Self>, key: CancelKey, backend: Arc<Backend<Counters>>) -> Option<Issued> {
        let mut known = self.known();
        if known.issuers.len() >= MOST {
            return None;
        }
        let number = known.next;
        known.next += 1;
        known.issuers.insert(key.clone(), Issuer { backend, number });
        drop(known);
        Some(Issued { keys: Arc::clone(self), key, number })
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Issued {
    fn drop(&mut self) {
        let mut known = self.keys.known();
        if known.issuers.get(&self.key).is_some_and(|issuer| issuer.number == self.number) {
            known.issuers.remove(&self.key);
        }
    }
}

impl Learner {
    pub(super) fn new(keys: &Arc<CancelKeys>, backend: &Arc<Backend<Counters>>) -> Self {
        Self {
            answers: Answers::default(),
            keys: Arc::clone(keys),
            backend: Arc::clone(backend),
            issued: None,
        }
    }

    /// Looks at the next bytes of the server.
    pub(super) fn see(&mut self, bytes: &[u8]) {
        if self.answers.goes_on()
            && let Some(key) = self.answers.read(bytes)
        {
            self.issued = self.keys.issue(key, Arc::clone(&self.backend));
            if self.issued.is_none() {
                tracing::debug!(backend = %self.backend.address, "there are too many connections to cancel this one");
            }
        }
    }
}

/// Passes a request on, and ends when the server has heard it: it closes the connection then, or within `limit` does not.
/// `preface` goes in front.
pub(super) async fn pass_on(
    backend: &Arc<Backend<Counters>>,
    key: &CancelKey,
    preface: &[u8],
    limit: Duration,
) -> io::Result<()> {
    // Also where the backend has as many connections as it may: one of them is to have an end.
    let busy = backend.occupy();
    let mut server = net::connect(backend.target(), &[], preface, limit).await?;
    busy.backend().detail.connected();
    let end = Instant::now() + limit;
    timeout_at(end, async {
        server.write_all(&key.request()).await?;
        server.flush().await
    })
    .await??;
    // However it ends.
    let _ = timeout_at(end, server.read(&mut [0])).await;
    Ok(())
}
