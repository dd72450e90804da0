//! TCP and UDP listeners as users write them in a policy. The operator resolves them into [`config`](crate::config).

use std::num::NonZeroU32;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    BackendReference, ServerCheckSpec, TcpBackendTlsSpec, TcpListenerTlsSpec,
    http::{NAME_PATTERN, default_address, listen_address},
};
use crate::{
    config::{
        ConnectionLog, KeepAlive, L4Balance, MAX_ROUTES, MAX_SERVER_NAMES, MAX_SESSIONS, OnBackendDown,
        OutlierDetection, ProxyProtocol, Rebalance, TcpBackendLimits, TcpProtocol, TcpTimeouts,
        TrafficDistribution,
    },
    schema,
    units::{Duration, ListenAddress, ServerNamePattern},
};

/// A local address whose connections go to the backends, byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "has(self.port) != self.address.startsWith('unix:')",
    "message": "a listener has a port, unless its address is a Unix socket",
}), json!({
    "rule": "!has(self.tls) || !has(self.tls.plainText) || self.tls.plainText == 'Refuse' || has(self.tls.startTls)",
    "message": "plainText is for clients that ask for TLS: set startTls too, or remove plainText",
}), json!({
    "rule": "!has(self.rebalance) || self.balance != 'SourceHash'",
    "message": "with balance SourceHash a client comes back to the same backend: remove rebalance",
}), json!({
    "rule": "!has(self.routes) || self.routes.all(r, r.serverNames.all(n, self.routes.exists_one(q, n in q.serverNames)))",
    "message": "a server name stands in two routes: keep it in one of them",
}), json!({
    "rule": "!has(self.health.udp)",
    "message": "checks by health.udp are for udp listeners: ask by http, postgres or redis, or by a connect",
}), json!({
    "rule": "has(self.routes) || size(self.backends) > 0",
    "message": "a listener has backends, or routes that have them",
}), json!({
    "rule": "!has(self.routes) || !(has(self.tls) || has(self.backendTls) || has(self.protocol) || has(self.rebalance))",
    "message": "routes go by TLS that goes through unopened: remove tls, backendTls, protocol and rebalance, or routes",
})]))]
pub struct TcpListenerSpec {
    /// Names the listener in logs, metrics and errors.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// Address to listen on. 127.0.0.1 serves the application alone; 0.0.0.0 takes connections from outside the pod; unix:/path
    /// is a Unix socket in one of injection.volumeMounts.
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

    /// What clients and backends speak, where the sidecar is to heed it; without it nothing is looked at. Postgres: a request to
    /// cancel a query goes to the server that runs the query. startTls says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<TcpProtocol>,

    /// Clients speak TLS, which ends here. Without it their bytes go on as they came, TLS of their own among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TcpListenerTlsSpec>,

    /// Backends for clients of some server names: TLS goes through unopened, and only the name that it asks for (SNI) is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(min = 1, max = MAX_ROUTES),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]),
    )]
    pub routes: Vec<TcpRouteSpec>,

    /// Where the backends come from; all of them together are balanced over. With routes, those of clients that no route is for,
    /// or that speak no TLS; without any, such clients are closed.
    #[serde(default)]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<BackendReference>,

    /// The sidecar speaks TLS with the backends and verifies who they are, for applications that do not. Without it bytes go on
    /// as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<TcpBackendTlsSpec>,

    /// How a backend is chosen for a connection. LeastConnections: the one with the fewest for its weight. TwoChoices: of two
    /// drawn at random, the one with fewer. RoundRobin: one after the other. Random: any. SourceHash: the same one for the same
    /// client address.
    #[serde(default)]
    pub balance: L4Balance,

    /// Time in which a backend that is new, or back, grows from a tenth of its share of new connections to all of it. Without
    /// it, it has all of it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,

    /// Whether backends in the zone of the pod come first. Auto: where their Service wants it by its own
    /// trafficDistribution. PreferSameZone: always. None: never.
    #[serde(default)]
    pub traffic_distribution: TrafficDistribution,

    /// Active checks of every backend. Without it, a connect every 5 s, within TLS where the backends are met so.
    #[serde(default)]
    pub health: ServerCheckSpec,

    /// Passive checks: a backend that cannot be connected to, or that breaks connections off before its first byte, several
    /// times in a row while others do well, is taken out for a while.
    #[serde(default)]
    pub outlier_detection: OutlierDetection,

    /// The most that this sidecar asks of one backend at once. Where all have as many connections as they may, clients wait in a
    /// queue.
    #[serde(default)]
    pub backend_limits: TcpBackendLimits,

    /// How long connecting, and a connection that is silent, may take.
    #[serde(default)]
    pub timeouts: TcpTimeouts,

    /// When hosts that have gone without a word are noticed where nothing is being sent.
    #[serde(default)]
    pub keep_alive: KeepAlive,

    /// Backends that are asked for a connection, one after another, before the client's is closed.
    #[serde(default = "crate::config::default_tries")]
    #[schemars(range(min = 1, max = 100))]
    pub connect_tries: NonZeroU32,

    /// What happens to the connections of a backend that fails its checks. Keep: they go on, and end when either side ends them.
    /// Close: they are closed, so that clients connect to another one.
    #[serde(default)]
    pub on_backend_down: OnBackendDown,

    /// Moves old connections to backends that join or are back, by closing them: some of those that others have beyond their
    /// fair share, the idlest first, so that clients connect anew. Without it, they stay where they are, and such a backend gets
    /// new ones alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,

    /// Who the client is, told in front of each connection.
    #[serde(default)]
    pub proxy_protocol: ProxyProtocol,

    /// Writes one line on standard output for each connection when it has ended. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<ConnectionLog>,
}

/// Backends of their own for clients that ask for one of some server names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpRouteSpec {
    /// Names the route in logs and metrics.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = NAME_PATTERN),
        extend("x-kubernetes-validations" = [json!({
            "rule": "self != 'all'",
            "message": "all names the backends that are of no route: choose another name",
        })]),
    )]
    pub name: String,

    /// Names that clients ask for, such as `a.example.com`, or `*.example.com` for all names below that one. A name itself goes
    /// before `*.`, and the longest `*.` before others; no name stands in two routes.
    #[schemars(length(min = 1, max = MAX_SERVER_NAMES), extend("x-kubernetes-list-type" = "set"))]
    pub server_names: Vec<ServerNamePattern>,

    /// Where the backends come from; all of them together are balanced over.
    #[schemars(length(min = 1, max = 4), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<BackendReference>,
}

/// A local address whose datagrams go to the backends, and whose answers come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!has(self.health) || !(has(self.health.postgres) || has(self.health.redis))",
    "message": "checks by health.postgres and health.redis are for tcp listeners: ask by udp or http, or by a connect",
})]))]
pub struct UdpListenerSpec {
    /// Names the listener in logs, metrics and errors.
    #[schemars(length(min = 1, max = 63), regex(pattern = NAME_PATTERN))]
    pub name: String,

    /// IP address to listen on. 127.0.0.1 serves the application alone; 0.0.0.0 takes datagrams from outside the pod.
    #[serde(default = "default_address")]
    #[schemars(schema_with = "ip_address")]
    pub address: ListenAddress,

    /// Port to listen on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Where the backends come from; all of them together are balanced over.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub backends: Vec<BackendReference>,

    /// How a backend is chosen for a client's session; LeastConnections counts sessions.
    #[serde(default)]
    pub balance: L4Balance,

    /// Whether backends in the zone of the pod come first. Auto: where their Service wants it by its own
    /// trafficDistribution. PreferSameZone: always. None: never.
    #[serde(default)]
    pub traffic_distribution: TrafficDistribution,

    /// Active checks of every backend, by a datagram, or by TCP or HTTP at `port`. Without it there are none: UDP itself does
    /// not tell whether anybody listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<ServerCheckSpec>,

    /// A client's datagrams go to one backend until nothing has come or gone for this time.
    #[serde(default = "crate::config::default_session_timeout")]
    pub session_timeout: Duration,

    /// Sessions that are kept at once. With more, the one that was silent for the longest time ends for each new one.
    #[serde(default = "crate::config::default_sessions")]
    #[schemars(range(min = 1, max = MAX_SESSIONS))]
    pub max_sessions: NonZeroU32,

    /// Writes one line on standard output for each session when it has ended. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<ConnectionLog>,
}

fn ip_address(_: &mut SchemaGenerator) -> Schema {
    schema::string(
        r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(\.(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}|::|::1)$",
        15,
        "IP address to listen on. 127.0.0.1 serves the application alone; 0.0.0.0 takes datagrams from outside the pod.",
    )
}
