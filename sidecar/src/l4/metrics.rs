//! Counters of the TCP data plane. Written as bare atomics through handles that a thread already holds; read, named and
//! labelled when a scrape comes. A backend that has gone takes its series with it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crds::metrics::Metric;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    registry::Registry,
};
use tokio::sync::watch;

use super::{
    families,
    per_backend::{self, Labels, PerBackend, count, down, ejected, ejections, outstanding, up, weight},
    tcp::{Queue, Ways},
};
use crate::{
    balance::Route,
    telemetry::{
        histogram::Histogram,
        shown::{Named, Shown},
    },
};

/// Why a connection did not come to a regular end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The client's TLS handshake failed, or what it said before it got a backend.
    Handshake,
    /// No route is for the server name that the client asks for.
    NoRoute,
    /// A request to cancel named no connection, or did not reach its server.
    Cancel,
    /// There is no live backend.
    NoBackend,
    /// Every backend that was asked could not be connected to.
    Connect,
    /// Every backend is full, and so is the queue.
    QueueFull,
    /// Every backend was full for too long.
    QueueTimeout,
    ClientBroke,
    BackendBroke,
    /// Nothing has moved for too long.
    Idle,
    /// The backend failed its checks, and its connections are to be closed then.
    BackendDown,
    /// Another backend has too few.
    Rebalanced,
}

impl Cause {
    const ALL: [Self; 12] = [
        Self::Handshake,
        Self::NoRoute,
        Self::Cancel,
        Self::NoBackend,
        Self::Connect,
        Self::QueueFull,
        Self::QueueTimeout,
        Self::ClientBroke,
        Self::BackendBroke,
        Self::Idle,
        Self::BackendDown,
        Self::Rebalanced,
    ];
}

impl Cause {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Handshake => "Handshake",
            Self::NoRoute => "NoRoute",
            Self::Cancel => "Cancel",
            Self::NoBackend => "NoBackend",
            Self::Connect => "Connect",
            Self::QueueFull => "QueueFull",
            Self::QueueTimeout => "QueueTimeout",
            Self::ClientBroke => "ClientBroke",
            Self::BackendBroke => "BackendBroke",
            Self::Idle => "Idle",
            Self::BackendDown => "BackendDown",
            Self::Rebalanced => "Rebalanced",
        }
    }
}

/// What is counted for each backend.
#[derive(Debug, Default)]
pub(super) struct Counters {
    connected: AtomicU64,
    connect_failures: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

/// What is counted for each listener, by thread.
#[derive(Debug, Default)]
pub(super) struct ThreadCounters {
    pub(super) connections: AtomicUsize,
    pub(super) durations: Histogram,
    failed: [AtomicU64; Cause::ALL.len()],
}

/// A listener as scrapes see it; it is in them for as long as it lives.
pub(super) struct ListenerMetrics {
    pub(super) name: String,
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) threads: Vec<Arc<ThreadCounters>>,
    pub(super) queue: Arc<Queue>,
    pub(super) ways: watch::Receiver<Arc<Ways>>,
}

impl ListenerMetrics {
    /// The backends of clients that no route is for, and those of each route.
    fn routes(&self) -> Vec<Arc<Route<Counters>>> {
        let ways = self.ways.borrow();
        let routes = ways.all.iter().map(|way| way.route.borrow().clone());
        std::iter::once(self.route.borrow().clone()).chain(routes).collect()
    }

    fn queued(&self) -> usize {
        self.queue.waiting() + self.ways.borrow().all.iter().map(|way| way.queue.waiting()).sum::<usize>()
    }
}

impl Named for ListenerMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

/// All series of the TCP listeners.
#[derive(Default)]
pub struct Metrics {
    listeners: Shown<ListenerMetrics>,
}

impl Counters {
    pub(super) fn connected(&self) {
        self.connected.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn connect_failed(&self) {
        self.connect_failures.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes to the backend and from it.
    pub(super) fn moved(&self, sent: u64, received: u64) {
        if sent > 0 {
            self.sent.fetch_add(sent, Ordering::Relaxed);
        }
        if received > 0 {
            self.received.fetch_add(received, Ordering::Relaxed);
        }
    }
}

impl ThreadCounters {
    pub(super) fn failed(&self, cause: Cause) {
        self.failed[cause as usize].fetch_add(1, Ordering::Relaxed);
    }
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::<Self>::default();
        registry.register_collector(Box::new(Arc::clone(&metrics)));
        metrics
    }

    /// Whether some listener has a live backend.
    pub(crate) fn is_live(&self) -> bool {
        self.listeners.all().iter().flat_map(|listener| listener.routes()).any(|route| route.is_live())
    }

    pub(super) fn add(&self, listener: &Arc<ListenerMetrics>) {
        self.listeners.add(listener);
    }
}

pub(super) static PER_BACKEND: [PerBackend<Counters>; 10] = [
    PerBackend { metric: &families::CONNECTED, value: |backend| count(&backend.detail.connected) },
    PerBackend {
        metric: &families::CONNECT_FAILURES,
        value: |backend| count(&backend.detail.connect_failures),
    },
    PerBackend { metric: &families::SENT, value: |backend| count(&backend.detail.sent) },
    PerBackend { metric: &families::RECEIVED, value: |backend| count(&backend.detail.received) },
    PerBackend { metric: &families::BACKEND_CONNECTIONS, value: outstanding },
    PerBackend { metric: &families::UP, value: up },
    PerBackend { metric: &families::EJECTIONS, value: ejections },
    PerBackend { metric: &families::EJECTED, value: ejected },
    PerBackend { metric: &families::WEIGHT, value: weight },
    PerBackend { metric: &families::DOWN, value: down },
];

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = self.listeners.all();
        encode_listeners(&mut encoder, &listeners)?;
        let routes: Vec<_> = listeners
            .iter()
            .flat_map(|listener| listener.routes().into_iter().map(|route| (listener.name.as_str(), route)))
            .collect();
        per_backend::encode(&mut encoder, &PER_BACKEND, &routes)
    }
}

fn encode_listeners(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    encode_gauge(encoder, listeners, &families::CONNECTIONS, |listener| {
        listener.threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum()
    })?;
    encode_gauge(encoder, listeners, &families::QUEUED, ListenerMetrics::queued)?;
    let mut family = families::FAILED.encode(encoder)?;
    for listener in listeners {
        for cause in Cause::ALL {
            let threads = listener.threads.iter();
            let count: u64 =
                threads.map(|thread| thread.failed[cause as usize].load(Ordering::Relaxed)).sum();
            let labels: Labels<'_> = vec![("listener", &listener.name), ("cause", cause.name())];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let mut family = families::DURATION.encode(encoder)?;
    for listener in listeners {
        let totals = Histogram::total(listener.threads.iter().map(|thread| &thread.durations));
        let labels: Labels<'_> = vec![("listener", &listener.name)];
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            totals.seconds,
            totals.count,
            &totals.buckets,
            None,
        )?;
    }
    Ok(())
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    listeners: &[Arc<ListenerMetrics>],
    metric: &Metric,
    value: fn(&ListenerMetrics) -> usize,
) -> fmt::Result {
    let mut family = metric.encode(encoder)?;
    for listener in listeners {
        let labels: Labels<'_> = vec![("listener", &listener.name)];
        family.encode_family(&labels)?.encode_gauge(&value(listener))?;
    }
    Ok(())
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}
