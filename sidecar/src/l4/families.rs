//! The metrics of TCP listeners by name, label and meaning.

use crds::metrics::{Group, Metric};
use prometheus_client::metrics::MetricType;

use super::{metrics::PER_BACKEND, udp};

const LISTENER: &[&str] = &["listener"];
const BACKEND: &[&str] = &["listener", "backend"];

pub(super) const CONNECTIONS: Metric = Metric {
    name: "sidecar_tcp_connections",
    kind: MetricType::Gauge,
    labels: LISTENER,
    help: "Connections of clients open now, those that wait for a backend among them",
    look: "When descriptors or memory grow: it should follow the size of the clients' pools",
};

pub(super) const QUEUED: Metric = Metric {
    name: "sidecar_tcp_queued",
    kind: MetricType::Gauge,
    labels: LISTENER,
    help: "Clients that wait because every backend has as many connections as `backendLimits` allow",
    look: "When connecting is slow: it should be 0 most of the time",
};

pub(super) const FAILED: Metric = Metric {
    name: "sidecar_tcp_failed",
    kind: MetricType::Counter,
    labels: &["listener", "cause"],
    help: "Connections of clients that did not come to a regular end, by cause",
    look: "First of all: `NoBackend` and `Connect` are clients that got none, `BackendBroke` are backends that broke off, `ClientBroke` applications that did",
};

pub(super) const DURATION: Metric = Metric {
    name: "sidecar_tcp_connection_duration_seconds",
    kind: MetricType::Histogram,
    labels: LISTENER,
    help: "Time from a client's connection to its end",
    look: "To tell pools, whose connections live long, from applications that connect for each query",
};

pub(super) const CONNECTED: Metric = Metric {
    name: "sidecar_tcp_backend_connected",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Connections that were opened to the backend for a client",
    look: "For the rate of new connections, and how they spread over backends",
};

pub(super) const CONNECT_FAILURES: Metric = Metric {
    name: "sidecar_tcp_connect_failures",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Connects to the backend that failed or timed out; the client was given another backend",
    look: "When a backend is down: many say that it is gone or that the network is cut",
};

pub(super) const SENT: Metric = Metric {
    name: "sidecar_tcp_sent_bytes",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Bytes of clients that went to the backend",
    look: "For the throughput of writes",
};

pub(super) const RECEIVED: Metric = Metric {
    name: "sidecar_tcp_received_bytes",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Bytes of the backend that went to clients",
    look: "For the throughput of reads",
};

pub(super) const BACKEND_CONNECTIONS: Metric = Metric {
    name: "sidecar_tcp_backend_connections",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Connections to the backend that are open or being opened",
    look: "When a server runs out of connections, and to see a balance that is not even",
};

pub(super) const UP: Metric = Metric {
    name: "sidecar_tcp_backend_up",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "1 while the checks of the backend are good, 0 while they are not; nothing before the first check",
    look: "First when there are errors; the sum over a listener is its live backends",
};

pub(super) const EJECTIONS: Metric = Metric {
    name: "sidecar_tcp_backend_ejections",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Times that the backend was taken out because connections to it failed in a row",
    look: "When a backend comes and goes: its checks are good and its connections are not, so that the check asks for too little",
};

pub(super) const EJECTED: Metric = Metric {
    name: "sidecar_tcp_backend_ejected",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "1 while the backend is out because connections to it failed in a row, 0 otherwise",
    look: "Beside `sidecar_tcp_backend_up`: a backend takes connections when it is up and not ejected",
};

pub(super) const WEIGHT: Metric = Metric {
    name: "sidecar_tcp_backend_weight",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Share of new connections that the backend gets relative to the others, as configured",
    look: "When a backend gets no connections: 0 is one that is being drained",
};

pub(super) const DOWN: Metric = Metric {
    name: "sidecar_tcp_backend_down_seconds",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Time that the backend was down",
    look: "For the availability of a backend over days",
};

/// All of them, and those of UDP listeners.
pub(crate) fn groups() -> [Group; 2] {
    let listeners = [&CONNECTIONS, &QUEUED, &FAILED, &DURATION].into_iter();
    let backends = PER_BACKEND.iter().map(|backend| backend.metric);
    let tcp =
        Group { title: "TCP listeners and their backends", metrics: listeners.chain(backends).collect() };
    [tcp, udp::group()]
}
