//! The metrics of HTTP listeners by name, label and meaning.

use crds::metrics::{Group, Metric};
use prometheus_client::metrics::MetricType;

use super::{auth, metrics::PER_BACKEND, sidekick_page};

const LISTENER: &[&str] = &["listener"];
const BACKEND: &[&str] = &["listener", "site", "backend"];

pub(super) const REQUESTS: Metric = Metric {
    name: "sidecar_http_requests",
    kind: MetricType::Counter,
    labels: &["listener", "site", "backend", "code"],
    help: "Requests answered by the backend, by class of the status code",
    look: "First of all: the rate of requests, how they spread over backends, and the share of `5xx`",
};

pub(super) const OWN_ANSWERS: Metric = Metric {
    name: "sidecar_http_own_answers",
    kind: MetricType::Counter,
    labels: &["listener", "code"],
    help: "Requests answered by the sidecar itself because no backend could, or the request may not pass, by class of the status code",
    look: "When the application sees errors that no backend sent: `5xx` are backends that could not be used, `4xx` requests that cannot be forwarded or may not pass",
};

pub(super) const REFUSED: Metric = Metric {
    name: "sidecar_http_refused",
    kind: MetricType::Counter,
    labels: &["listener", "cause"],
    help: "Requests that the sidecar has answered instead of a backend, by the cause that the access log gives: `BadRequest`, `BodyTooLarge`, `RateLimited`, `Unauthorized`, `Forbidden`, `NoKeys`, `NoBackend`, `BackendsFull`, `BackendsFailed`, `TimedOut`",
    look: "Beside `sidecar_http_own_answers_total`, to see whether it is the clients, who may come in, or the backends",
};

pub(super) const RATE_LIMITED: Metric = Metric {
    name: "sidecar_http_rate_limited",
    kind: MetricType::Counter,
    labels: &["listener", "limit"],
    help: "Requests that a rate limit of the listener has refused",
    look: "When clients are answered with 429: many of one limit say that it is too low, or that somebody asks too much",
};

pub(super) const CONNECTIONS: Metric = Metric {
    name: "sidecar_http_connections",
    kind: MetricType::Gauge,
    labels: LISTENER,
    help: "Connections of clients open now",
    look: "When descriptors or memory grow: it should follow the size of the clients' pools",
};

pub(super) const IN_FLIGHT: Metric = Metric {
    name: "sidecar_http_requests_in_flight",
    kind: MetricType::Gauge,
    labels: LISTENER,
    help: "Requests being served now",
    look: "When latency grows: if it grows too, the backends do not keep up",
};

pub(super) const DURATION: Metric = Metric {
    name: "sidecar_http_request_duration_seconds",
    kind: MetricType::Histogram,
    labels: LISTENER,
    help: "Time from a request's head to the last byte of its answer",
    look: "For quantiles of latency as the application sees it, retries and resumed answers included",
};

pub(super) const RETRIES: Metric = Metric {
    name: "sidecar_http_retries",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Requests that were sent again because this backend failed them",
    look: "Before errors reach the application: a backend with many fails more than its `5xx` show",
};

pub(super) const CONNECT_FAILURES: Metric = Metric {
    name: "sidecar_http_connect_failures",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Connects to the backend that failed or timed out",
    look: "When a backend is down: many say that it is gone or that the network is cut, none that it answers but badly",
};

pub(super) const RESUMED: Metric = Metric {
    name: "sidecar_http_resumed",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Answers of other backends that broke off and were gone on with by this one",
    look: "When backends restart: each is a download that did not fail",
};

pub(super) const SENT: Metric = Metric {
    name: "sidecar_http_sent_bytes",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Bytes of request bodies sent to the backend",
    look: "For the throughput of uploads",
};

pub(super) const RECEIVED: Metric = Metric {
    name: "sidecar_http_received_bytes",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Bytes of response bodies received from the backend",
    look: "For the throughput of downloads",
};

pub(super) const BACKEND_IN_FLIGHT: Metric = Metric {
    name: "sidecar_http_backend_requests_in_flight",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Requests that the backend is serving now",
    look: "When one backend is slower than the others: with LeastRequest it has no more than they have, and fewer answers",
};

pub(super) const UP: Metric = Metric {
    name: "sidecar_http_backend_up",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "1 while the checks of the backend are good, 0 while they are not; nothing before the first check",
    look: "First when there are errors; the sum over a site is its live backends",
};

pub(super) const EJECTIONS: Metric = Metric {
    name: "sidecar_http_backend_ejections",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Times that the backend was taken out because requests to it failed in a row",
    look: "When a backend comes and goes: its checks are good and its answers are not, so that the check asks for too little",
};

pub(super) const EJECTED: Metric = Metric {
    name: "sidecar_http_backend_ejected",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "1 while the backend is out because requests to it failed in a row, 0 otherwise",
    look: "Beside `sidecar_http_backend_up`: a backend takes requests when it is up and not ejected",
};

pub(super) const WEIGHT: Metric = Metric {
    name: "sidecar_http_backend_weight",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Share of the requests that the backend gets relative to the others of its site, as configured",
    look: "When a backend gets no requests: 0 is one that is being drained",
};

pub(super) const BACKEND_CONNECTIONS: Metric = Metric {
    name: "sidecar_http_backend_connections",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Connections to the backend that are open or being opened",
    look: "When a backend runs out of connections, or requests are answered with 503 because its limit is reached; less those in flight, it is the pool",
};

pub(super) const DOWN: Metric = Metric {
    name: "sidecar_http_backend_down_seconds",
    kind: MetricType::Counter,
    labels: BACKEND,
    help: "Time that the backend was down",
    look: "For the availability of a backend over days",
};

pub(super) const LAST_DOWN: Metric = Metric {
    name: "sidecar_http_backend_last_down_seconds",
    kind: MetricType::Gauge,
    labels: BACKEND,
    help: "Time that the backend has been down now, or was the last time; nothing if it never was",
    look: "To tell one long outage from many short ones",
};

/// All of them, and those of the page that sidekick's users scrape.
pub(crate) fn groups() -> [Group; 4] {
    let backends = PER_BACKEND.iter().map(|backend| backend.metric);
    [
        Group {
            title: "Listeners",
            metrics: vec![&OWN_ANSWERS, &REFUSED, &RATE_LIMITED, &CONNECTIONS, &IN_FLIGHT, &DURATION],
        },
        Group { title: "Backends", metrics: [&REQUESTS].into_iter().chain(backends).collect() },
        Group { title: "Keys of tokens", metrics: auth::FAMILIES.to_vec() },
        Group {
            title: "At `/.prometheus/metrics` of a listener that has sidekick's paths",
            metrics: sidekick_page::FAMILIES.to_vec(),
        },
    ]
}
