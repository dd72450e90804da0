//! Active checks of TCP and UDP listeners as users write them in a policy: passwords and CAs come from Secrets of the policy's
//! namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    SiteTlsSpec,
    tls::{KEY_PATTERN, SECRET_PATTERN},
};
use crate::{
    config::{HttpCheck, PostgresRole, RedisRole, SERVER_NAME_PATTERN, ServerCheck, UdpCheck},
    units::Duration,
};

/// How every backend is checked: in one of the ways http, postgres, redis and udp. A backend starts unknown, and its first
/// check decides. Without any of the ways, the check is a connect. Checks go within TLS where the backends are met so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.interval.matches('[1-9]') && self.timeout.matches('[1-9]')",
    "message": "interval and timeout are longer than zero",
}), json!({
    "rule": "(has(self.http) ? 1 : 0) + (has(self.postgres) ? 1 : 0) + (has(self.redis) ? 1 : 0) + (has(self.udp) ? 1 : 0) <= 1",
    "message": "a check asks in one way: keep one of http, postgres, redis and udp",
}), json!({
    "rule": "!has(self.tls) || !has(self.udp)",
    "message": "datagrams go within no TLS: remove tls, or udp",
})]))]
pub struct ServerCheckSpec {
    /// Asks by HTTP, often at a port beside the one that serves: CockroachDB tells at `/health?ready=1` that it is draining, which
    /// a connect does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,

    /// Asks a PostgreSQL server whether it takes sessions, and which role it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub postgres: Option<PostgresCheckSpec>,

    /// Asks a Redis server whether it answers, and which role it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisCheckSpec>,

    /// Sends a datagram, and waits for one: for UDP listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub udp: Option<UdpCheck>,

    /// The check goes within this TLS instead of what backendTls says: for servers whose TLS the application speaks itself.
    /// PostgreSQL is asked for it first (SSLRequest).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<SiteTlsSpec>,

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

/// The first words of a PostgreSQL session. Without a password and a role nobody logs in: a server that answers the greeting by
/// asking who is there is up, and so is one that is only full; one that is starting up or shutting down is not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostgresCheckSpec {
    /// Who logs in. It needs no rights but to connect.
    #[serde(default = "crate::config::default_postgres_user")]
    #[schemars(length(min = 1, max = 128), regex(pattern = SERVER_NAME_PATTERN))]
    pub user: String,

    /// The database that is asked for. The one of the user's name by default, as everywhere with PostgreSQL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = SERVER_NAME_PATTERN))]
    pub database: Option<String>,

    /// Secret with the password, by SCRAM or MD5, and in clear text within TLS alone. An edit counts within about a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<PasswordSecret>,

    /// Logs in, and asks for the role. Primary: it takes writes. Replica: it is in recovery, and takes reads alone. A server in
    /// the other role gets nothing, even where there is no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PostgresRole>,
}

/// PING, which a server answers with PONG; one that loads its data, or that lost its master and must not answer without it, does
/// not.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!has(self.user) || has(self.passwordSecret)",
    "message": "a user has a password: add passwordSecret",
})]))]
pub struct RedisCheckSpec {
    /// User of the access control list (ACL). `default` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = SERVER_NAME_PATTERN))]
    pub user: Option<String>,

    /// Secret with the password, which is sent as it is: use TLS where others may listen. An edit counts within about a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password_secret: Option<PasswordSecret>,

    /// Asks for the role (ROLE). Master: it takes writes. Replica: it follows a master. A server in another role gets nothing,
    /// even where there is no other one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<RedisRole>,
}

/// One key of a Secret of the policy's namespace. A pod waits to start until it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PasswordSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_PATTERN))]
    pub name: String,

    /// Key in it, with the password. A line break at its end is not part of it.
    #[serde(default = "password")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn password() -> String {
    "password".to_owned()
}

/// The same as without a policy.
impl Default for ServerCheckSpec {
    fn default() -> Self {
        let ServerCheck {
            port,
            interval,
            jitter_percent,
            timeout,
            healthy_threshold,
            unhealthy_threshold,
            panic,
            ..
        } = ServerCheck::default();
        Self {
            http: None,
            postgres: None,
            redis: None,
            udp: None,
            tls: None,
            port,
            interval,
            jitter_percent,
            timeout,
            healthy_threshold,
            unhealthy_threshold,
            panic,
        }
    }
}
