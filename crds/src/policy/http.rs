//! HTTP listeners as users write them in a policy. The operator resolves them into [`config`](crate::config).

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{AuthenticationSpec, ListenerTlsSpec, SiteTlsSpec, TracingSpec};
use crate::{
    config::{
        AccessLog, BackendLimits, Balance, DnsBackend, DownAnswer, HEADER_PATTERN, HealthCheck,
        MAX_RATE_LIMITS, MAX_SITES, MAX_WEIGHT, OutlierDetection, Protocol, RateLimit, SidekickPaths,
        Timeouts, TrafficDistribution,
    },
    schema,
    units::{AddressPattern, ByteSize, Duration, ListenAddress},
};

pub(super) const NAME_PATTERN: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// A local address that the sidecar opens for the application, and where its requests go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "(self.balance == 'HeaderHash') == has(self.hashHeader)",
    "message": "hashHeader is the header that HeaderHash goes by: write both or neither",
}), json!({
    "rule": "has(self.port) != self.address.startsWith('unix:')",
    "message": "a listener has a port, unless its address is a Unix socket",
}), json!({
    "rule": "!has(self.authentication) || !self.authentication.clientCertificates || (has(self.tls) && has(self.tls.clientCa))",
    "message": "authentication.clientCertificates needs tls.clientCa, which verifies them",
})]))]
pub struct HttpListenerSpec {
    /// Names the listener in logs, metrics and errors.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Address to listen on. 127.0.0.1 serves the application alone; 0.0.0.0 takes requests from outside the pod; unix:/path is
    /// a Unix socket in one of injection.volumeMounts.
    #[serde(default = "default_address")]
    #[schemars(schema_with = "listen_address")]
    pub address: ListenAddress,

    /// Port to listen on; a Unix socket has none. 15470 is the sidecar's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        range(min = 1, max = 65535),
        extend("x-kubernetes-validations" = [json!({
            "rule": "self != 15470",
            "message": "port 15470 serves the sidecar's own /live, /ready and /metrics: choose another",
        })])
    )]
    pub port: Option<u16>,

    /// Makes this an HTTPS listener. Without it requests come in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTlsSpec>,

    /// Sites in failover order: the first one with a live backend takes all traffic.
    #[schemars(
        length(min = 1, max = MAX_SITES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub sites: Vec<SiteSpec>,

    /// Active checks of every backend of every site. Without it, a TCP connect every 5 s.
    #[serde(default)]
    pub health: HealthCheck,

    /// How a backend is chosen for a request. LeastRequest: of two drawn at random, the one with fewer requests under way.
    /// PeakEwma: the same, by requests under way times recent latency. RoundRobin: one after the other. Random: any.
    /// HeaderHash: the same one for the same value of hashHeader; a request without that header goes by LeastRequest.
    #[serde(default)]
    pub balance: Balance,

    /// The header that HeaderHash goes by, such as `X-Tenant`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub hash_header: Option<String>,

    /// Time in which a backend that is new, or back, grows from a tenth of its share of the requests to all of it. Without
    /// it, it has all of it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,

    /// Whether backends in the zone of the pod come first. Auto: where their Service wants it by its own
    /// trafficDistribution. PreferSameZone: always. None: never. The zone is the pod's label topology.kubernetes.io/zone,
    /// which Kubernetes 1.35 and newer set.
    #[serde(default)]
    pub traffic_distribution: TrafficDistribution,

    /// Passive checks: a backend whose requests fail in a row, while others of its site answer well, is taken out for a
    /// while.
    #[serde(default)]
    pub outlier_detection: OutlierDetection,

    /// The most that this sidecar asks of one backend at once. Requests go to others, and where all have as much as they
    /// may, they are answered with 503 and Retry-After at once. Without a number there is no limit.
    #[serde(default)]
    pub backend_limits: BackendLimits,

    /// How long a request, and each part of it, may take. Except for total, none of these bounds how long a body may take while
    /// it moves.
    #[serde(default)]
    pub timeouts: Timeouts,

    /// Tell backends of the client: X-Forwarded-For gets its address, and X-Real-IP and X-Forwarded-Host are set where they
    /// are missing. For a client on loopback, as the application is, it is the address of the pod.
    #[serde(default)]
    pub forwarded_headers: bool,

    /// What the application gets when no backend can serve its request.
    #[serde(default)]
    pub down_answer: DownAnswer,

    /// Paths that the listener answers itself, for applications that know MinIO's sidekick.
    #[serde(default)]
    pub sidekick: SidekickPaths,

    /// Writes one line on standard output for each request. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,

    /// Sees to it that each request belongs to a trace. Without it headers of traces go on as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingSpec>,

    /// The largest body of a request, such as 10Mi; 0 lets none through. A larger one is answered with 413: at once where its
    /// Content-Length says so, else when it has grown beyond it, and the backend's request is broken off. Without it there is no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_body_size: Option<ByteSize>,

    /// How many requests are let through; a request must be within all limits. Without any, all are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_RATE_LIMITS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rate_limits: Vec<RateLimit>,

    /// Who may send requests. Without it, everyone who can connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<AuthenticationSpec>,
}

/// An ordered group of backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SiteSpec {
    /// Names the site in logs, metrics and errors.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Where the site's backends come from; all of them together are balanced over.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<BackendReference>,

    /// Requests and checks go to the backends within TLS. Without it they go in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SiteTlsSpec>,

    /// What is spoken with the backends. Http1: HTTP/1.1. Http2: HTTP/2, as gRPC needs it; in plain text without asking, within
    /// TLS a backend that does not agree to it (ALPN h2) fails. Auto: within TLS what the backend prefers, in plain text
    /// HTTP/1.1. Clients choose for themselves: a listener takes both.
    #[serde(default)]
    pub protocol: Protocol,
}

/// One source of backends: exactly one of the fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "[has(self.service), has(self.addresses), has(self.dns)].exists_one(set, set)",
    "message": "a backend is exactly one of service, addresses or dns",
})]))]
pub struct BackendReference {
    /// The endpoints of a Kubernetes Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReference>,

    /// Static addresses, `ip:port`, with ranges such as `10.9.0.{1...4}:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Option<Vec<AddressPattern>>,

    /// The addresses of a DNS name, asked again when its TTL has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsBackend>,

    /// Share of the requests that each backend of this source gets, relative to the others of its site. 0 takes no new
    /// requests: those under way finish.
    #[serde(default = "crate::config::default_weight")]
    #[schemars(range(max = MAX_WEIGHT))]
    pub weight: u32,
}

/// A Service, in this namespace or in one that exports to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReference {
    /// Name of the Service.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Namespace of the Service; the policy's own by default. Another one must consent with the annotation
    /// `sidecar.io/export-to`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub namespace: Option<String>,

    /// Port of the Service, by number or by name, as its clients would use it.
    pub port: ServicePort,
}

/// A Service's port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ServicePort {
    Number(u16),
    Name(String),
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl JsonSchema for ServicePort {
    fn schema_name() -> Cow<'static, str> {
        "ServicePort".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "minimum": 1,
            "maximum": 65535,
            "maxLength": 63,
            "pattern": NAME_PATTERN,
            "description": "Port of the Service, by number or by name, as its clients would use it.",
        })
    }
}

pub(super) fn default_address() -> ListenAddress {
    ListenAddress::LOOPBACK
}

pub(super) fn listen_address(_: &mut SchemaGenerator) -> Schema {
    schema::string(
        r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}|::|::1|unix:/[-A-Za-z0-9._/@%+=]*[-A-Za-z0-9._@%+=])$",
        112,
        "Address to listen on. 127.0.0.1 serves the application alone; 0.0.0.0 takes requests from outside the pod; unix:/path \
         is a Unix socket in one of injection.volumeMounts.",
    )
}
