//! Active checks of servers that need not speak HTTP.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::health::HOST_PATTERN;
use crate::units::{Duration, StatusRange};

/// How every backend is checked. A backend starts unknown, and its first check decides. Without a protocol, the check is a
/// connect, within TLS where the backends are met so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.interval.matches('[1-9]') && self.timeout.matches('[1-9]')",
    "message": "interval and timeout are longer than zero",
})]))]
pub struct ServerCheck {
    /// Asks by HTTP, often at a port beside the one that serves: CockroachDB tells at `/health?ready=1` that it is draining, which
    /// a connect does not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,

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
    /// Backends where nothing listens get none.
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

pub(crate) fn default_statuses() -> Vec<StatusRange> {
    vec![StatusRange::one(200)]
}

impl Default for ServerCheck {
    fn default() -> Self {
        Self {
            http: None,
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
