//! What threads share about one backend: atomics, and nothing else.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
};

use crds::units::Address;
use tokio::sync::Notify;

use super::{Condition, Endpoint};
use crate::net::tls::{Client, Peer};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A backend of a site. `D` is what the protocol counts.
pub struct Backend<D> {
    /// Never used again, not even for the same address after it was gone for a while.
    pub id: u64,
    pub site: Arc<str>,
    pub address: Address,
    /// How it is met within TLS; `None` in plain text.
    pub tls: Option<Peer>,
    pub detail: D,
    outstanding: AtomicUsize,
    /// A connect failed since the last good check.
    suspect: AtomicBool,
    condition: AtomicU8,
    check_now: Notify,
}

impl<D: Default> Backend<D> {
    pub fn new(site: Arc<str>, address: Address) -> Self {
        Self::within(site, &Endpoint::at(address), None)
    }

    /// A backend that is met within TLS, if there is a client.
    pub fn within(site: Arc<str>, endpoint: &Endpoint, tls: Option<&Arc<Client>>) -> Self {
        let peer = |client| Peer::new(Arc::clone(client), &endpoint.address, endpoint.host.as_deref());
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            site,
            address: endpoint.address.clone(),
            tls: tls.map(peer),
            detail: D::default(),
            outstanding: AtomicUsize::new(0),
            suspect: AtomicBool::new(false),
            condition: AtomicU8::new(Condition::Unknown.code()),
            check_now: Notify::new(),
        }
    }
}

impl<D> Backend<D> {
    /// Requests under way on all threads.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Counts one request for as long as the result lives.
    pub fn occupy(self: &Arc<Self>) -> Busy<D> {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Connecting failed: no more requests while others are there, and a check at once.
    pub fn suspect(&self) {
        if !self.suspect.swap(true, Ordering::Relaxed) {
            self.check_now.notify_one();
        }
    }

    /// A request failed in a way that may be the backend's fault or not: a check at once, and nothing else.
    pub fn doubt(&self) {
        self.check_now.notify_one();
    }

    pub fn is_suspect(&self) -> bool {
        self.suspect.load(Ordering::Relaxed)
    }

    pub fn condition(&self) -> Condition {
        Condition::from_code(self.condition.load(Ordering::Relaxed))
    }

    pub(super) fn trust(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }

    pub(super) fn set_condition(&self, condition: Condition) {
        self.condition.store(condition.code(), Ordering::Relaxed);
    }

    pub(super) async fn check_wanted(&self) {
        self.check_now.notified().await;
    }
}

/// One request under way.
pub struct Busy<D>(Arc<Backend<D>>);

impl<D> Busy<D> {
    pub fn backend(&self) -> &Arc<Backend<D>> {
        &self.0
    }
}

impl<D> Drop for Busy<D> {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}
