//! The metrics of UDP listeners by name, label and meaning.

use crds::metrics::{Group, Metric};
use prometheus_client::metrics::MetricType;

use super::metrics::PER_BACKEND;

const LISTENER: &[&str] = &["listener"];
const BACKEND: &[&str] = &["listener", "backend"];

pub(super) const SESSIONS: Metric = Metric {
    name: "sidecar_udp_sessions",
    kind: MetricType::Gauge,
    labels: LISTENER,
    help: "Sessions of clients that are kept now",
    look: "Beside `maxSessions` of the listener: each holds one descriptor until nothing has come or gone for `sessionTimeout`",
};

pub(super) const EVICTED: Metric = Metric {
    name: "sidecar_udp_evicted",
    kind: MetricType::Counter,
    labels: LISTENER,
    help: "Sessions that ended because there was no room for a new one",
    look: "When clients lose answers: many say that `maxSessions` or the limit of descriptors is too low, or that somebody forges sources",
};

pub(super) const DROPPED: Metric = Metric {
    name: "sidecar_udp_dropped",
    kind: MetricType::Counter,
    labels: &["listener", "cause"],
    help: "Datagrams that went nowhere, by cause",
    look: "When clients wait for answers in vain: `NoBackend` and `Unreachable` are backends, `SendBuffer` is the network, `NoRoom` and `NoSocket` are limits of this process",
};

pub(super) const OPENED: Metric = Metric {
    name: "sidecar_udp_backend_opened",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Sessions that began at the backend, those among them that another backend had before",
    look: "For the rate of new clients, and how they spread over backends",
};

pub(super) const BACKEND_SESSIONS: Metric = Metric {
    name: "sidecar_udp_backend_sessions",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Sessions that the backend has now",
    look: "To see a balance that is not even",
};

pub(super) const SENT_DATAGRAMS: Metric = Metric {
    name: "sidecar_udp_sent_datagrams",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Datagrams of clients that went to the backend",
    look: "For the rate of requests; beside those received, backends that do not answer",
};

pub(super) const SENT_BYTES: Metric = Metric {
    name: "sidecar_udp_sent_bytes",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Bytes in datagrams of clients that went to the backend",
    look: "For the throughput towards the backend",
};

pub(super) const RECEIVED_DATAGRAMS: Metric = Metric {
    name: "sidecar_udp_received_datagrams",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Datagrams of the backend that came in for clients",
    look: "For the rate of answers",
};

pub(super) const RECEIVED_BYTES: Metric = Metric {
    name: "sidecar_udp_received_bytes",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Bytes in datagrams of the backend that came in for clients",
    look: "For the throughput towards clients",
};

pub(super) const REFUSED: Metric = Metric {
    name: "sidecar_udp_backend_refused",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Times that a session learned that nobody listens at the backend, or that there is no way to it; it goes to another one then",
    look: "When a backend is down: each is at least one datagram that was lost",
};

pub(super) const UP: Metric = Metric {
    name: "sidecar_udp_backend_up",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "1 while the checks of the backend are good, 0 while they are not; nothing before the first check, or without checks",
    look: "First when there are errors; the sum over a listener is its live backends",
};

pub(super) const EJECTIONS: Metric = Metric {
    name: "sidecar_udp_backend_ejections",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Times that the backend was taken out because it refused several times in a row while others answered",
    look: "When a backend comes and goes",
};

pub(super) const EJECTED: Metric = Metric {
    name: "sidecar_udp_backend_ejected",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "1 while the backend is out because it refused several times in a row, 0 otherwise",
    look: "Beside `sidecar_udp_backend_up`: a backend takes sessions when it is not down and not ejected",
};

pub(super) const WEIGHT: Metric = Metric {
    name: "sidecar_udp_backend_weight",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Share of new sessions that the backend gets relative to the others, as configured",
    look: "When a backend gets no sessions: 0 is one that is being drained",
};

pub(super) const DOWN: Metric = Metric {
    name: "sidecar_udp_backend_down_seconds",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Time that the backend was down by its checks",
    look: "For the availability of a backend over days",
};

/// All of them.
pub(in crate::l4) fn group() -> Group {
    let backends = PER_BACKEND.iter().map(|backend| backend.metric);
    Group {
        title: "UDP listeners and their backends",
        metrics: [&SESSIONS, &EVICTED, &DROPPED].into_iter().chain(backends).collect(),
    }
}
