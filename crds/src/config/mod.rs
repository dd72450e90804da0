//! SidecarConfig: the one type that crosses from operator to sidecar, and a complete file for the sidecar alone.
//!
//! The operator writes it under one key per configuration version ([`names::config_key`](crate::names::config_key));
//! a sidecar reads the newest version that it knows. Fields it does not know are reported and not fatal, so that
//! sidecars of an older release keep getting edits after the operator was upgraded.

mod authentication;
mod backend;
mod balance;
mod health;
mod jwt;
mod l4;
mod limits;
mod listener;
mod observe;
mod server_check;
mod sidekick;
mod timeouts;
mod tls;

pub use authentication::{
    AllowRule, ApiKeys, Authentication, MAX_ALLOW_RULES, MAX_ALLOWED_NAMES, default_api_key_header,
};
pub use backend::{
    AddressFamily, Backend, BackendSource, DnsBackend, DnsGrouping, DnsRecord, ServiceBackend, Transport,
    UnresolvedBackend, WeightedSource,
};
pub(crate) use balance::default_weight;
pub use balance::{
    BackendLimits, Balance, HEADER_PATTERN, MAX_WEIGHT, OutlierDetection, TrafficDistribution,
};
pub use health::{HOST_PATTERN, HealthCheck, InitialHealth};
pub use jwt::{
    ClaimHeader, ClaimRule, Jwks, Jwt, JwtAlgorithm, LONGEST_LEEWAY, LONGEST_REFRESH, MAX_AUDIENCES,
    MAX_CLAIM_HEADERS, MAX_CLAIM_VALUES, MAX_CLAIMS, SHORTEST_REFRESH, default_forward, default_leeway,
    default_refresh, default_token_header,
};
pub use l4::{
    KeepAlive, L4Balance, MAX_ROUTES, MAX_SERVER_NAMES, MAX_SESSIONS, OnBackendDown, ProxyProtocol,
    ProxyVersion, Rebalance, TcpBackendLimits, TcpListener, TcpRoute, TcpTimeouts, UdpListener,
};
pub(crate) use l4::{default_session_timeout, default_sessions, default_tries};
pub use limits::{LONGEST_PERIOD, MAX_RATE_LIMITS, RateLimit, RateLimitScope};
pub use listener::{HttpListener, MAX_LISTENERS, MAX_SITES, Protocol, Site};
pub use observe::{
    AccessLog, AccessLogFormat, ConnectionLog, LoggedKind, MAX_LOGGED_STATUSES, MAX_REDACTED, TraceExport,
    Tracing, default_service_name,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub(crate) use server_check::default_postgres_user;
pub use server_check::{
    HttpCheck, PostgresCheck, PostgresRole, RedisCheck, RedisRole, SERVER_NAME_PATTERN, ServerCheck, UdpCheck,
};
pub use sidekick::{DownAnswer, SidekickPaths};
pub use timeouts::Timeouts;
pub use tls::{
    BackendTls, ClientCa, ClientCaMode, KeyPairFiles, ListenerCertificate, ListenerTls,
    MAX_SELF_SIGNED_HOSTS, PlainText, SelfSigned, TcpBackendTls, TcpListenerTls, TcpProtocol, TlsVersion,
};

use crate::units::Duration;

/// The configuration version that this release writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Everything that one sidecar does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SidecarConfig {
    /// The policy this came from; absent in a file written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyReference>,

    /// How long requests in flight may take to finish after SIGTERM, or after their listener or backend was removed.
    #[serde(default = "default_drain_timeout")]
    pub drain_timeout: Duration,

    /// HTTP listeners: each balances over the backends of the first site that has a live one.
    #[serde(default)]
    #[schemars(length(max = MAX_LISTENERS))]
    pub http: Vec<HttpListener>,

    /// TCP listeners: each passes the bytes of its connections on to one of its backends.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LISTENERS))]
    pub tcp: Vec<TcpListener>,

    /// UDP listeners: each passes the datagrams of a client on to one of its backends, and the answers back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LISTENERS))]
    pub udp: Vec<UdpListener>,
}

/// Names the policy, and the generation of it, that a configuration was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyReference {
    pub namespace: String,
    pub name: String,
    /// `metadata.generation` of the policy.
    pub generation: i64,
}

/// 30 s: the grace period that Kubernetes gives a pod by default.
pub fn default_drain_timeout() -> Duration {
    Duration::from_secs(30)
}

impl Default for SidecarConfig {
    fn default() -> Self {
        Self {
            policy: None,
            drain_timeout: default_drain_timeout(),
            http: Vec::new(),
            tcp: Vec::new(),
            udp: Vec::new(),
        }
    }
}
