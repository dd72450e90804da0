//! Active health checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::balance::is_default;
use crate::units::{Duration, StatusRange};

/// How every backend is checked. Its first check decides, which is made at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.interval.matches('[1-9]') && self.timeout.matches('[1-9]')",
    "message": "interval and timeout are longer than zero",
}), json!({
    "rule": "has(self.path) || !has(self.lastSitePath) && !has(self.host)",
    "message": "lastSitePath and host are for HTTP checks: add path",
})]))]
pub struct HealthCheck {
    /// Path of an HTTP GET whose answer must be one of `expectedStatuses`. Without a path, the check is a TCP connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: Option<String>,

    /// Path for the last site instead of `path`, such as one that asks for less of a site which is there for failover.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub last_site_path: Option<String>,

    /// Host header of the GET, for servers that serve several hosts. The backend's own address by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 259), regex(pattern = HOST_PATTERN))]
    pub host: Option<String>,

    /// Port of the check, if it is another than the backend's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<u16>,

    /// What a backend is until its first check. Up, the default: it takes requests, so that a start is no outage. Down: it takes
    /// none, and where no site has another, requests wait for that check, up to 1 s.
    #[serde(skip_serializing_if = "is_default")]
    pub initial: InitialHealth,

    /// Status codes that are good, each alone or as a range such as `200-299`.
    #[schemars(length(min = 1, max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub expected_statuses: Vec<StatusRange>,

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

    /// Failures in a row that take a backend out.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,

    /// Checks a backend that is up only when a request to it has failed, and regularly only while it is down.
    pub optimistic: bool,

    /// Sends requests to backends of the last site that only fail their checks, where no site has a live backend: checks
    /// under load may fail everywhere. Backends where nothing listens get none.
    pub panic: bool,
}

/// What a backend is until its first check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum InitialHealth {
    #[default]
    Up,
    Down,
}

/// A host name or address, with a port or without.
pub const HOST_PATTERN: &str = r"^([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?$";

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: None,
            last_site_path: None,
            host: None,
            port: None,
            initial: InitialHealth::default(),
            expected_statuses: vec![StatusRange::one(200)],
            interval: Duration::from_secs(5),
            jitter_percent: 10,
            timeout: Duration::from_secs(2),
            healthy_threshold: 1,
            unhealthy_threshold: 3,
            optimistic: false,
            panic: true,
        }
    }
}
