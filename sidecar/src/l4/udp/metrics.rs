//! Counters of UDP listeners, written as bare atomics, once for each batch; read, named and labelled when a scrape comes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    registry::Registry,
};
use tokio::sync::watch;

use super::{families, room::Room, send::Sent};
use crate::{
    balance::Route,
    l4::per_backend::{self, Labels, PerBackend, count, down, ejected, ejections, outstanding, up, weight},
    telemetry::shown::{Named, Shown},
};

/// Why a datagram went nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no live backend.
    NoBackend,
    /// There may be no more sessions, and none can go for this one.
    NoRoom,
    /// The process or the kernel has no socket left for the session.
    NoSocket,
    /// A client without a session, while the listener is closing.
    Draining,
    /// The backend, or the client, cannot be sent to.
    Unreachable,
    /// The network is slower than what is to be sent.
    SendBuffer,
    /// Longer than what can be sent on this way.
    TooLong,
    /// Its end had not come in.
    Truncated,
    /// It came to a session's socket, but not from the backend.
    Stranger,
}

impl Cause {
    const ALL: [Self; 9] = [
        Self::NoBackend,
        Self::NoRoom,
        Self::NoSocket,
        Self::Draining,
        Self::Unreachable,
        Self::SendBuffer,
        Self::TooLong,
        Self::Truncated,
        Self::Stranger,
    ];
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is counted for each backend.
#[derive(Debug, Default)]
pub(super) struct Counters {
    opened: AtomicU64,
    refused: AtomicU64,
    sent_datagrams: AtomicU64,
    sent_bytes: AtomicU64,
    received_datagrams: AtomicU64,
    received_bytes: AtomicU64,
}

impl Counters {
    /// A session has begun here.
    pub(super) fn opened(&self) {
        self.opened.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn sent(&self, sent: &Sent) {
        if sent.datagrams > 0 {
            self.sent_datagrams.fetch_add(sent.datagrams, Ordering::Relaxed);
            self.sent_bytes.fetch_add(sent.bytes, Ordering::Relaxed);
        }
    }

    pub(super) fn received(&self, datagrams: u64, bytes: u64) {
        self.received_datagrams.fetch_add(datagrams, Ordering::Relaxed);
        self.received_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// What is counted for each listener, by thread.
#[derive(Debug, Default)]
pub(super) struct ThreadCounters {
    evicted: AtomicU64,
    dropped: [AtomicU64; Cause::ALL.len()],
}

impl ThreadCounters {
    pub(super) fn evicted(&self) {
        self.evicted.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self, cause: Cause, datagrams: u64) {
        if datagrams > 0 {
            self.dropped[cause as usize].fetch_add(datagrams, Ordering::Relaxed);
        }
    }

    /// What did not go of what was to be sent.
    pub(super) fn not_sent(&self, sent: &Sent) {
        self.dropped(Cause::SendBuffer, sent.no_buffer);
        self.dropped(Cause::TooLong, sent.too_long);
    }
}

/// A listener as scrapes see it; it is in them for as long as it lives.
pub(super) struct ListenerMetrics {
    pub(super) name: String,
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) threads: Vec<Arc<ThreadCounters>>,
    pub(super) room: Arc<Room>,
}

impl Named for ListenerMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

/// All series of the UDP listeners.
#[derive(Default)]
pub struct Metrics {
    listeners: Shown<ListenerMetrics>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::<Self>::default();
        registry.register_collector(Box::new(Arc::clone(&metrics)));
        metrics
    }

    pub(super) fn add(&self, listener: &Arc<ListenerMetrics>) {
        self.listeners.add(listener);
    }
}

pub(super) static PER_BACKEND: [PerBackend<Counters>; 12] = [
    PerBackend { metric: &families::OPENED, value: |backend| count(&backend.detail.opened) },
    PerBackend { metric: &families::BACKEND_SESSIONS, value: outstanding },
    PerBackend { metric: &families::SENT_DATAGRAMS, value: |backend| count(&backend.detail.sent_datagrams) },
    PerBackend { metric: &families::SENT_BYTES, value: |backend| count(&backend.detail.sent_bytes) },
    PerBackend {
        metric: &families::RECEIVED_DATAGRAMS,
        value: |backend| count(&backend.detail.received_datagrams),
    },
    PerBackend { metric: &families::RECEIVED_BYTES, value: |backend| count(&backend.detail.received_bytes) },
    PerBackend { metric: &families::REFUSED, value: |backend| count(&backend.detail.refused) },
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
            .map(|listener| (listener.name.as_str(), listener.route.borrow().clone()))
            .collect();
        per_backend::encode(&mut encoder, &PER_BACKEND, &routes)
    }
}

fn encode_listeners(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let mut family = families::SESSIONS.encode(encoder)?;
    for listener in listeners {
        let labels: Labels<'_> = vec![("listener", &listener.name)];
        family.encode_family(&labels)?.encode_gauge(&(listener.room.sessions() as u64))?;
    }
    let mut family = families::EVICTED.encode(encoder)?;
    for listener in listeners {
        let count: u64 = listener.threads.iter().map(|thread| thread.evicted.load(Ordering::Relaxed)).sum();
        let labels: Labels<'_> = vec![("listener", &listener.name)];
        family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    let mut family = families::DROPPED.encode(encoder)?;
    for listener in listeners {
        for cause in Cause::ALL {
            let threads = listener.threads.iter();
            let count: u64 =
                threads.map(|thread| thread.dropped[cause as usize].load(Ordering::Relaxed)).sum();
            let cause = cause.to_string();
            let labels: Labels<'_> = vec![("listener", &listener.name), ("cause", &cause)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}
