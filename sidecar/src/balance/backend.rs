//! What threads share about one backend: atomics, and nothing else.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use crds::{config::Protocol, units::Address};
use tokio::sync::Notify;

use super::{
    Condition,
    downtime::Downtime,
    outcome::{Latency, Outcome, Streak},
    shared::Shared,
};
use crate::net::{Target, tls::Peer};

static NEXT: AtomicU64 = AtomicU64::new(1);

/// A backend of a site. `D` is what the protocol counts.
pub struct Backend<D> {
    /// Never used again, not even for the same address after it was gone for a while.
    pub id: u64,
    pub site: Arc<str>,
    pub address: Address,
    /// The address as text, for those who write it often.
    pub shown: Box<str>,
    /// Further addresses of the same server.
    pub others: Option<Arc<[Address]>>,
    /// The name that the address was found by, where it was by one.
    pub host: Option<Arc<str>>,
    /// How it is met within TLS; `None` in plain text.
    pub tls: Option<Peer>,
    /// What it is asked in; none where it is not HTTP.
    pub protocol: Option<Protocol>,
    pub detail: D,
    outstanding: AtomicUsize,
    /// Open connections, those under way among them.
    connections: AtomicUsize,
    /// Connections under way.
    pending: AtomicUsize,
    /// A connect failed since the last good check.
    suspect: AtomicBool,
    condition: AtomicU8,
    downtime: Downtime,
    check_now: Notify,
    pub(super) streak: Streak,
    pub(super) latency: Latency,
    shared: Arc<Shared>,
    /// As configured, for metrics.
    weight: AtomicU32,
    ejected: AtomicBool,
    ejections: AtomicU64,
}

impl<D: Default> Backend<D> {
    /// `tls`: it is met within TLS. `latency`: what to assume until it has answered.
    pub(super) fn new(
        site: Arc<str>,
        address: Address,
        tls: Option<Peer>,
        shared: Arc<Shared>,
        latency: Latency,
    ) -> Self {
        Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            site,
            shown: address.to_string().into(),
            address,
            others: None,
            host: None,
            tls,
            protocol: None,
            detail: D::default(),
            outstanding: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            pending: AtomicUsize::new(0),
            suspect: AtomicBool::new(false),
            condition: AtomicU8::new(Condition::Unknown.code()),
            downtime: Downtime::new(Instant::now()),
            check_now: Notify::new(),
            streak: Streak::default(),
            latency,
            shared,
            weight: AtomicU32::new(1),
            ejected: AtomicBool::new(false),
            ejections: AtomicU64::new(0),
        }
    }

    /// The same, with these addresses beside its own.
    pub(super) fn also_at(self, others: Option<Arc<[Address]>>) -> Self {
        Self { others, ..self }
    }

    /// The same, found by this name.
    pub(super) fn named(self, host: Option<Arc<str>>) -> Self {
        Self { host, ..self }
    }

    /// The same, and this until its first check.
    pub(super) fn being(self, condition: Condition) -> Self {
        Self { condition: AtomicU8::new(condition.code()), ..self }
    }

    /// The same, asked in this protocol.
    pub(super) fn speaking(self, protocol: Option<Protocol>) -> Self {
        Self { protocol, ..self }
    }
}

impl<D> Backend<D> {
    /// Where to connect to.
    pub fn target(&self) -> Target<'_> {
        let others = self.others.as_deref().unwrap_or_default();
        Target { others, ..Target::new(&self.address, self.tls.as_ref()) }
    }

    /// Requests under way on all threads.
    pub fn outstanding(&self) -> usize {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Counts one request for as long as the result lives.
    pub fn occupy(self: &Arc<Self>) -> Busy<D> {
        self.outstanding.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Leave to open one more connection; none while the backend has as many as its limits allow, open or under way.
    pub fn connect(self: &Arc<Self>) -> Option<Connecting<D>> {
        let open = Open::new(self, self.shared.max_connections())?;
        Connecting::new(open, self.shared.max_pending())
    }

    /// Connections open or under way on all threads.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// How a try has ended, called once for each; `latency` is the time that the head of the response took, or until the
    /// failure. A failed connect makes the backend suspect, and a break or a time-out has it checked. Locks nothing.
    pub fn observe(&self, outcome: Outcome, latency: Duration) {
        match outcome {
            Outcome::ClientAborted => return,
            Outcome::Good => {
                self.streak.succeed(&self.shared.clock);
                if self.shared.measures() {
                    self.latency.sample(latency);
                }
                return;
            }
            Outcome::ConnectFailed => self.suspect(),
            Outcome::Broken | Outcome::TimedOut => self.doubt(),
            Outcome::ServerError | Outcome::Throttled => {}
        }
        if outcome != Outcome::Throttled {
            self.shared.failed(self.streak.fail(&self.shared.clock));
        }
        if self.shared.measures() {
            self.latency.fail(latency);
        }
    }

    /// Connecting failed: no more requests while others are there, and a check at once.
    fn suspect(&self) {
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

    /// As configured; 0 takes no new requests.
    pub fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    /// Out of traffic because requests failed.
    pub fn is_ejected(&self) -> bool {
        self.ejected.load(Ordering::Relaxed)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Ordering::Relaxed)
    }

    /// How long it has been down in all.
    pub fn downtime(&self) -> Duration {
        self.downtime.total(Instant::now())
    }

    /// How long it has been down now, or was the last time; `None` if it never was.
    pub fn last_downtime(&self) -> Option<Duration> {
        self.downtime.last(Instant::now())
    }

    pub(super) fn trust(&self) {
        self.suspect.store(false, Ordering::Relaxed);
    }

    pub(super) fn set_condition(&self, condition: Condition) {
        self.condition.store(condition.code(), Ordering::Relaxed);
        self.downtime.turn(condition.is_down(), Instant::now());
    }

    pub(super) fn set_weight(&self, weight: u32) {
        self.weight.store(weight, Ordering::Relaxed);
    }

    pub(super) fn eject(&self) {
        self.ejected.store(true, Ordering::Relaxed);
        self.ejections.fetch_add(1, Ordering::Relaxed);
    }

    /// Takes it back into traffic, with a clean slate.
    pub(super) fn readmit(&self) {
        self.streak.forget();
        self.ejected.store(false, Ordering::Relaxed);
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

/// One connection that is being opened; dropping it gives up.
pub struct Connecting<D>(Open<D>);

/// One open connection.
pub struct Open<D>(Arc<Backend<D>>);

impl<D> Connecting<D> {
    fn new(open: Open<D>, limit: usize) -> Option<Self> {
        // Counts before it asks, so that two threads never take the last place both.
        let full = open.0.pending.fetch_add(1, Ordering::Relaxed) >= limit;
        let connecting = Self(open);
        (!full).then_some(connecting)
    }

    /// The connection is there; it counts for as long as the result lives.
    pub fn established(self) -> Open<D> {
        Open(Arc::clone(self.0.recount()))
    }
}

impl<D> Drop for Connecting<D> {
    fn drop(&mut self) {
        self.0.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}

impl<D> Open<D> {
    fn new(backend: &Arc<Backend<D>>, limit: usize) -> Option<Self> {
        let full = backend.connections.fetch_add(1, Ordering::Relaxed) >= limit;
        let open = Self(Arc::clone(backend));
        (!full).then_some(open)
    }

    /// Counts once more, for a successor of this one.
    fn recount(&self) -> &Arc<Backend<D>> {
        self.0.connections.fetch_add(1, Ordering::Relaxed);
        &self.0
    }
}

impl<D> Drop for Open<D> {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::Rules;

    fn backend(limits: &str) -> Arc<Backend<()>> {
        let listener = format!("{{name: a, port: 1, sites: [], backendLimits: {limits}}}");
        let listener: crds::config::HttpListener = serde_yaml::from_str(&listener).unwrap();
        let shared = Arc::<Shared>::default();
        shared.adopt(&Rules::from(&listener));
        Arc::new(Backend::new("s".into(), "10.0.0.1:80".parse().unwrap(), None, shared, Latency::default()))
    }

    #[test]
    fn connections_are_bounded_open_and_under_way() {
        let backend = backend("{maxConnections: 3, maxPending: 2}");
        let first = backend.connect().unwrap();
        let second = backend.connect().unwrap();
        assert!(backend.connect().is_none(), "two are under way");
        let first = first.established();
        let third = backend.connect().unwrap();
        assert_eq!(backend.connections(), 3);
        let second = second.established();
        assert!(backend.connect().is_none(), "three are there");
        drop((second, third));
        assert_eq!(backend.connections(), 1);
        assert!(backend.connect().is_some());
        drop(first);
        assert_eq!((backend.connections(), backend.pending.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn a_client_that_aborts_a_slow_down_and_a_501_never_count() {
        let backend = backend("{}");
        for outcome in [Outcome::ServerError, Outcome::ConnectFailed, Outcome::Broken, Outcome::TimedOut] {
            backend.observe(outcome, Duration::ZERO);
        }
        assert_eq!(backend.streak.failures(), 4);
        for _ in 0..100 {
            backend.observe(Outcome::ClientAborted, Duration::ZERO);
            backend.observe(Outcome::Throttled, Duration::ZERO);
        }
        assert_eq!(backend.streak.failures(), 4);
        backend.observe(Outcome::Good, Duration::ZERO);
        assert_eq!(backend.streak.failures(), 0);
    }
}
