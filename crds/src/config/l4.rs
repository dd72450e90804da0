//! TCP and UDP listeners: bytes and datagrams that go on as they came.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Backend, ConnectionLog, OutlierDetection, ServerCheck, TcpBackendTls, TcpListenerTls, TcpProtocol,
    TrafficDistribution,
    balance::is_default,
    listener::{MAX_SOURCES, default_address, is_zero},
};
use crate::units::{Duration, ListenAddress, ServerNamePattern};

/// Most sessions that one UDP listener may be told to keep.
pub const MAX_SESSIONS: u32 = 1 << 20;

/// Routes of one TCP listener, and server names of one route.
pub const MAX_ROUTES: u32 = 16;
pub const MAX_SERVER_NAMES: u32 = 16;

/// A local address whose connections go to the backends, byte for byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpListener {
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

    /// What clients and backends speak, where the sidecar is to heed it; without it nothing is looked at. Postgres: a request to
    /// cancel a query goes to the server that runs the query. startTls says the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<TcpProtocol>,

    /// Clients speak TLS, which ends here. Without it their bytes go on as they came, TLS of their own among them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TcpListenerTls>,

    /// Backends for clients of some server names: TLS goes through unopened, and only the name that it asks for (SNI) is read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ROUTES))]
    pub routes: Vec<TcpRoute>,

    /// Where the backends come from; all sources together make one backend set. With routes, those of clients that no route is
    /// for, or that speak no TLS; without any, such clients are closed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_SOURCES))]
    pub backends: Vec<Backend>,

    /// The sidecar speaks TLS with the backends, and verifies who they are. Without it bytes go on as they came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend_tls: Option<TcpBackendTls>,

    /// How a backend is chosen for a connection.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: L4Balance,

    /// Time in which a backend that is new, or back, grows from a tenth of its share of new connections to all of it. Without
    /// it, it has all of it at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<Duration>,

    /// Whether backends in the zone of the pod come first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub traffic_distribution: TrafficDistribution,

    /// Active checks of every backend. Without it, a connect every 5 s, within TLS where the backends are met so.
    #[serde(default, skip_serializing_if = "is_default")]
    pub health: ServerCheck,

    /// Passive checks: a backend that cannot be connected to, or that breaks connections off before its first byte, several
    /// times in a row while others do well, is taken out for a while.
    #[serde(default, skip_serializing_if = "is_default")]
    pub outlier_detection: OutlierDetection,

    /// The most that this sidecar asks of one backend at once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub backend_limits: TcpBackendLimits,

    /// How long connecting, and a connection that is silent, may take.
    #[serde(default, skip_serializing_if = "is_default")]
    pub timeouts: TcpTimeouts,

    /// When hosts that have gone without a word are noticed where nothing is being sent.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep_alive: KeepAlive,

    /// Backends that are asked for a connection, one after another, before the client's is closed.
    #[serde(default = "default_tries", skip_serializing_if = "is_default_tries")]
    #[schemars(range(min = 1, max = 100))]
    pub connect_tries: NonZeroU32,

    /// What happens to the connections of a backend that fails its checks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_backend_down: OnBackendDown,

    /// Moves old connections to backends that join or are back, by closing them. Without it, they stay where they are, and such
    /// a backend gets new ones alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,

    /// Who the client is, told in front of each connection.
    #[serde(default, skip_serializing_if = "is_default")]
    pub proxy_protocol: ProxyProtocol,

    /// Writes one line on standard output for each connection when it has ended. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<ConnectionLog>,
}

impl TcpListener {
    /// What clients and backends speak, by whichever field says so.
    pub fn spoken(&self) -> Option<TcpProtocol> {
        let of_clients = self.tls.as_ref().and_then(|tls| tls.start_tls);
        let of_backends = self.backend_tls.as_ref().and_then(|tls| tls.start_tls);
        self.protocol.or(of_clients).or(of_backends)
    }
}

/// Backends of their own for clients that ask for one of some server names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpRoute {
    /// Names the route in logs and metrics. Unique within the listener.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Names that clients ask for, such as `a.example.com`, or `*.example.com` for all names below that one. A name itself goes
    /// before `*.`, and the longest `*.` before others; no name stands in two routes.
    #[schemars(length(min = 1, max = MAX_SERVER_NAMES))]
    pub server_names: Vec<ServerNamePattern>,

    /// Where the backends come from; all sources together make one backend set.
    #[schemars(length(min = 1, max = MAX_SOURCES))]
    pub backends: Vec<Backend>,
}

/// A local address whose datagrams go to the backends, and whose answers come back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UdpListener {
    /// Names the listener in logs, metrics and errors. Unique within the file.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// IP address to listen on: 127.0.0.1, which is the default, serves the application alone.
    #[serde(default = "default_address")]
    pub address: ListenAddress,

    /// Port to listen on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Where the backends come from; all sources together make one backend set.
    #[schemars(length(min = 1, max = MAX_SOURCES))]
    pub backends: Vec<Backend>,

    /// How a backend is chosen for a client's session; LeastConnections counts sessions.
    #[serde(default, skip_serializing_if = "is_default")]
    pub balance: L4Balance,

    /// Whether backends in the zone of the pod come first.
    #[serde(default, skip_serializing_if = "is_default")]
    pub traffic_distribution: TrafficDistribution,

    /// Active checks of every backend. Without it there are none: UDP itself does not tell whether anybody listens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<ServerCheck>,

    /// A client's datagrams go to one backend until nothing has come or gone for this time.
    #[serde(default = "default_session_timeout", skip_serializing_if = "is_default_session_timeout")]
    pub session_timeout: Duration,

    /// Sessions that are kept at once. With more, the one that was silent for the longest time ends for each new one.
    #[serde(default = "default_sessions", skip_serializing_if = "is_default_sessions")]
    #[schemars(range(min = 1, max = MAX_SESSIONS))]
    pub max_sessions: NonZeroU32,

    /// Writes one line on standard output for each session when it has ended. Without it there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<ConnectionLog>,
}

/// How a backend is chosen for a connection. LeastConnections: the one with the fewest for its weight. TwoChoices: of two
/// drawn at random, the one with fewer. RoundRobin: one after the other. Random: any. SourceHash: the same one for the same
/// client address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum L4Balance {
    #[default]
    LeastConnections,
    TwoChoices,
    RoundRobin,
    Random,
    SourceHash,
}

/// Keep: they go on, and end when either side ends them. Close: they are closed, so that clients connect to another one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum OnBackendDown {
    #[default]
    Keep,
    Close,
}

/// When a backend joins or is back, connections that others have beyond their fair share are closed, the idlest first, so that
/// clients connect anew; a connection pool does so by itself. No more are closed than the backend should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.quiet.matches('[1-9]')",
    "message": "quiet is longer than zero",
})]))]
pub struct Rebalance {
    /// Connections that each sidecar closes in a second, at most.
    #[schemars(range(min = 1, max = 1_000))]
    pub connections_per_second: NonZeroU32,

    /// A connection is closed when nothing has moved on it for this time, in either direction, and what moved last came from the
    /// backend: one that waits for an answer is left alone, however long that takes. A transaction that is open meanwhile is
    /// rolled back; with such pauses this is to be longer than they are.
    pub quiet: Duration,
}

/// The PROXY protocol, by which one proxy tells the next who the client is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyProtocol {
    /// Every connection to the listener begins with it, in version 1 or 2; others are closed. Whoever can connect can say to be
    /// anybody: for listeners that only a proxy reaches.
    pub accept: bool,

    /// Backends are told of the client in this version, in front of TLS. Without it they see the sidecar.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub send: Option<ProxyVersion>,
}

/// V1 is a line of text, V2 is binary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ProxyVersion {
    V1,
    V2,
}

/// The most that this sidecar asks of one backend at once. Where all have as many connections as they may, clients wait in a
/// queue, first come, first served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.queueTimeout.matches('[1-9]')",
    "message": "queueTimeout is longer than zero",
})]))]
pub struct TcpBackendLimits {
    /// Connections to one backend. Without a number there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,

    /// Clients of the listener that wait for a connection; with more, new ones are closed at once.
    #[schemars(range(max = 65_536))]
    pub max_queued: u32,

    /// A client that has waited for this time is closed.
    pub queue_timeout: Duration,
}

/// Time limits of connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.connect.matches('[1-9]') && self.idle.matches('[1-9]') && (!has(self.user) || self.user.matches('[1-9]'))",
    "message": "connect, idle and user are longer than zero",
})]))]
pub struct TcpTimeouts {
    /// A connection to a backend must be open after this time, TLS included. Otherwise another backend is tried.
    pub connect: Duration,

    /// A connection on which nothing has moved for this time, in either direction, is closed. Databases keep theirs for long.
    pub idle: Duration,

    /// A connection whose client or backend has not acknowledged what was sent to it for this time is closed: its host has gone,
    /// or it has read nothing for so long although there was more than it could take in (TCP_USER_TIMEOUT). Without it the
    /// kernel gives up hosts that have gone after a quarter of an hour, and those that do not read are waited for until `idle`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Duration>,
}

/// On a connection that is silent, the kernel asks the other host now and then whether it is there. Times are counted in whole
/// seconds, up to 32767.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.after.matches('[1-9]') && self.interval.matches('[1-9]')",
    "message": "after and interval are longer than zero",
})]))]
pub struct KeepAlive {
    /// Silence before the first question. Below what a firewall or a cloud's balancer in between forgets connections after, it
    /// keeps these open.
    pub after: Duration,

    /// Time from one question without an answer to the next.
    pub interval: Duration,

    /// Questions without an answer after which the connection is closed.
    #[schemars(range(min = 1, max = 100))]
    pub probes: NonZeroU32,
}

impl Default for KeepAlive {
    fn default() -> Self {
        const PROBES: NonZeroU32 = NonZeroU32::new(3).unwrap();
        Self { after: Duration::from_secs(30), interval: Duration::from_secs(5), probes: PROBES }
    }
}

impl Default for Rebalance {
    fn default() -> Self {
        Self { connections_per_second: NonZeroU32::MIN, quiet: Duration::from_secs(5) }
    }
}

impl Default for TcpBackendLimits {
    fn default() -> Self {
        Self { max_connections: None, max_queued: 1024, queue_timeout: Duration::from_secs(5) }
    }
}

impl Default for TcpTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(5), idle: Duration::from_secs(3600), user: None }
    }
}

const TRIES: NonZeroU32 = NonZeroU32::new(3).unwrap();
const SESSIONS: NonZeroU32 = NonZeroU32::new(16_384).unwrap();
const SESSION_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn default_tries() -> NonZeroU32 {
    TRIES
}

fn is_default_tries(tries: &NonZeroU32) -> bool {
    *tries == TRIES
}

pub(crate) fn default_sessions() -> NonZeroU32 {
    SESSIONS
}

fn is_default_sessions(sessions: &NonZeroU32) -> bool {
    *sessions == SESSIONS
}

pub(crate) fn default_session_timeout() -> Duration {
    SESSION_TIMEOUT
}

fn is_default_session_timeout(timeout: &Duration) -> bool {
    *timeout == SESSION_TIMEOUT
}
