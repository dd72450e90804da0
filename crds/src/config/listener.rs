//! HTTP listeners and their sites.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AccessLog, Authentication, Backend, BackendLimits, BackendTls, Balance, DownAnswer, HealthCheck,
    ListenerTls, MAX_RATE_LIMITS, OutlierDetection, RateLimit, SidekickPaths, Timeouts, Tracing,
    TrafficDistribution,
    balance::{HEADER_PATTERN, is_default},
};
use crate::units::{Address, ByteSize, Duration, ListenAddress};

pub const MAX_LISTENERS: u32 = 16;
pub const MAX_SITES: u32 = 8;
/// As many as a command line names one by one; a policy has fewer.
pub(super) const MAX_SOURCES: u32 = 1024;

/// A local address that the sidecar opens for the application, and where its requests go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpListener {
    /// Names the listener in logs, metrics and errors. Unique within the file.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Address to listen on: 127.0.0.1, which is the default, serves the application alone; unix:/path is a Unix socket, that
    /// whoever can reach its directory may use.
    #[serde(default = "default_address")]
    pub address: ListenAddress,

    /// Port to listen on; a Unix socket has none.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Makes this an HTTPS listener. Without it requests come in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,

    /// Sites in failover order: the first one with a live backend takes all traffic.
    #[schemars(length(min = 1, max = MAX_SITES))]
    pub sites: Vec<Site>,

    /// Active checks of every backend of every site. Without it, a TCP connect every 5 s.
    #[serde(default)]
    pub health: HealthCheck,

    /// How a backend is chosen for a request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: Balance,

    /// The header that HeaderHash goes by, such as `X-Tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub hash_header: Option<String>,

    /// Time in which a backend that is new, or back, grows from a tenth of its share of the requests to all of it. Without
    /// it, it has all of it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,

    /// Whether backends in the zone of the pod come first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub traffic_distribution: TrafficDistribution,

    /// Passive checks: backends whose requests fail in a row are taken out for a while.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outlier_detection: OutlierDetection,

    /// The most that this sidecar asks of one backend at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backend_limits: BackendLimits,

    /// How long a request, and each part of it, may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: Timeouts,

    /// Tell backends of the client: X-Forwarded-For gets its address, and X-Real-IP and X-Forwarded-Host are set where they
    /// are missing. For a client on loopback it is the address by which this machine or pod is known to others.
    #[serde(default, skip_serializing_if = "is_default")]
    pub forwarded_headers: bool,

    /// What an application gets when no backend can serve its request.
    #[serde(default, skip_serializing_if = "is_default")]
    pub down_answer: DownAnswer,

    /// Paths that the listener answers itself.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sidekick: SidekickPaths,

    /// Writes one line on standard output for each request. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,

    /// Sees to it that each request belongs to a trace. Without it headers of traces go on as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Tracing>,

    /// The largest body of a request, such as 10Mi; 0 lets none through. A larger one is answered with 413: at once where its
    /// Content-Length says so, else when it has grown beyond it, and the backend's request is broken off. Without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<ByteSize>,

    /// How many requests are let through; a request must be within all limits. Without any, all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_RATE_LIMITS))]
    pub rate_limits: Vec<RateLimit>,

    /// Who may send requests. Without it, everyone who can connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
}

impl HttpListener {
    pub fn socket_address(&self) -> Address {
        self.address.at(self.port)
    }
}

/// An ordered group of backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// Names the site in logs, metrics and errors. Unique within the listener.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Where the site's backends come from; all sources together make one backend set.
    #[schemars(length(min = 1, max = MAX_SOURCES))]
    pub backends: Vec<Backend>,

    /// Requests and checks go to the backends within TLS. Without it they go in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,

    /// What is spoken with the backends.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
}

/// What is spoken with the backends of a site. Http1: HTTP/1.1. Http2: HTTP/2, as gRPC needs it; in plain text without asking,
/// within TLS a backend that does not agree to it (ALPN h2) fails. Auto: within TLS what the backend prefers, in plain text
/// HTTP/1.1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Protocol {
    #[default]
    Http1,
    Http2,
    Auto,
}

pub(super) fn default_address() -> ListenAddress {
    ListenAddress::LOOPBACK
}

pub(super) fn is_zero(port: &u16) -> bool {
    *port == 0
}
