//! Active checks of servers that need not speak HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{BackendTls, health::HOST_PATTERN};
use crate::units::{Duration, HexBytes, StatusRange};

/// Names that servers know: whatever is no control character.
pub const SERVER_NAME_PATTERN: &str = r"^[^\x00-\x1F\x7F]+$";

/// How every backend is checked: in one of the ways http, postgres, redis and udp. A backend starts unknown, and its first
/// check decides. Without any of the ways, the check is a connect. Checks go within TLS where the backends are met so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerCheck {
    /// Asks by HTTP, often at a port beside the one that serves: CockroachDB tells at `/health?ready=1` that it is draining, which
    /// a connect does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,

    /// Asks a PostgreSQL server whether it takes sessions, and which role it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresCheck>,

    /// Asks a Redis server whether it answers, and which role it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisCheck>,

    /// Sends a datagram, and waits for one: for UDP listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpCheck>,

    /// The check goes within this TLS instead of what backendTls says: for servers whose TLS the application speaks itself.
    /// PostgreSQL is asked for it first (SSLRequest).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,

    /// Port of the check, if it is another than the backend's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// Time between two checks of a backend.
    pub interval: Duration,

    /// How far each interval may be longer or shorter at random, in percent, so that the checks of many sidecars spread.
    #[schemars(range(max = 100))]
    pub jitter_percent: u32,

    /// A check without an answer after this time has failed.
    pub timeout: Duration,

    /// Successes in a row that bring a backend back.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: u32,

    /// Failures in a row that take a backend out: with 1, after interval and timeout at most.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,

    /// Sends connections to backends that only fail their checks, where there is no other: checks under load may fail everywhere.
    /// Backends where nothing listens, or that have another role than is wanted, get none.
    pub panic: bool,
}

/// An HTTP GET, and what answers are good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Path of the GET.
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: String,

    /// Host header of the GET. The backend's own address by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259), regex(pattern = HOST_PATTERN))]
    pub host: Option<String>,

    /// Status codes that are good, each alone or as a range such as `200-299`.
    #[serde(default = "default_statuses")]
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub expected_statuses: Vec<StatusRange>,
}

/// The first words of a PostgreSQL session. Without a password and a role nobody logs in: a server that answers the greeting by
/// asking who is there is up, and so is one that is only full; one that is starting up or shutting down is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PostgresCheck {
    /// Who logs in. It needs no rights but to connect.
    #[schemars(length(min = 1, max = 128), regex(pattern = SERVER_NAME_PATTERN))]
    pub user: String,

    /// The database that is asked for. The one of the user's name by default, as everywhere with PostgreSQL.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = SERVER_NAME_PATTERN))]
    pub database: Option<String>,

    /// File with the password, by SCRAM or MD5, and in clear text within TLS alone. A line break at its end is not part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub password_file: Option<String>,

    /// Logs in, and asks for the role. A server in the other role gets nothing, even where there is no other one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<PostgresRole>,
}

/// Primary: it takes writes. Replica: it is in recovery, and takes reads alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PostgresRole {
    Primary,
    Replica,
}

/// PING, which a server answers with PONG; one that loads its data, or that lost its master and must not answer without it, does
/// not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RedisCheck {
    /// User of the access control list (ACL). `default` without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = SERVER_NAME_PATTERN))]
    pub user: Option<String>,

    /// File with the password, which is sent as it is: use TLS where others may listen. A line break at its end is not part of
    /// it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub password_file: Option<String>,

    /// Asks for the role (ROLE). A server in another role gets nothing, even where there is no other one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<RedisRole>,
}

/// Master: it takes writes. Replica: it follows a master.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RedisRole {
    Master,
    Replica,
}

/// A datagram, and how its answer begins. It is sent up to three times within the time-out, since datagrams get lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "has(self.send) != has(self.sendHex)",
    "message": "write what is sent as text in send, or as bytes in sendHex",
}), json!({
    "rule": "!has(self.expect) || !has(self.expectHex)",
    "message": "write how the answer begins as text in expect, or as bytes in expectHex",
})]))]
pub struct UdpCheck {
    /// What is sent, as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub send: Option<String>,

    /// What is sent, as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send_hex: Option<HexBytes>,

    /// How a good answer begins, as text. Without it, and without `expectHex`, any answer is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expect: Option<String>,

    /// How a good answer begins, as bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_hex: Option<HexBytes>,
}

impl ServerCheck {
    /// The file with the password, and the field that names it.
    pub fn password_file(&self) -> Option<(&'static str, &str)> {
        let postgres = self.postgres.as_ref().and_then(|postgres| postgres.password_file.as_deref());
        let redis = self.redis.as_ref().and_then(|redis| redis.password_file.as_deref());
        let postgres = postgres.map(|path| ("postgres.passwordFile", path));
        postgres.or_else(|| redis.map(|path| ("redis.passwordFile", path)))
    }
}

impl UdpCheck {
    /// What is sent; `None` where it is written in no way, or in two.
    pub fn question(&self) -> Option<&[u8]> {
        match (&self.send, &self.send_hex) {
            (Some(text), None) => Some(text.as_bytes()),
            (None, Some(bytes)) => Some(bytes.as_bytes()),
            _ => None,
        }
    }

    /// How a good answer begins: empty where any is good.
    pub fn answer(&self) -> &[u8] {
        let bytes = || self.expect_hex.as_ref().map(HexBytes::as_bytes);
        self.expect.as_deref().map(str::as_bytes).or_else(bytes).unwrap_or_default()
    }
}

impl Default for PostgresCheck {
    fn default() -> Self {
        Self { user: default_postgres_user(), database: None, password_file: None, role: None }
    }
}

/// Nobody needs to be known by it: servers ask for the password of whoever comes.
pub(crate) fn default_postgres_user() -> String {
    "sidecar".to_owned()
}

pub(crate) fn default_statuses() -> Vec<StatusRange> {
    vec![StatusRange::one(200)]
}

impl Default for ServerCheck {
    fn default() -> Self {
        Self {
            http: None,
            postgres: None,
            redis: None,
            udp: None,
            tls: None,
            port: None,
            interval: Duration::from_secs(5),
            jitter_percent: 10,
            timeout: Duration::from_secs(2),
            healthy_threshold: 1,
            unhealthy_threshold: 1,
            panic: true,
        }
    }
}
