//! Active health checks.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::units::Duration;

/// How every backend is checked. A backend starts unknown, and its first check decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.interval.matches('[1-9]') && self.timeout.matches('[1-9]')",
    "message": "interval and timeout are longer than zero",
})]))]
pub struct HealthCheck {
    /// Path of an HTTP GET whose answer must be 200. Without a path, the check is a TCP connect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = "^/[!-~]*$"))]
    pub path: Option<String>,

    /// Time between two checks of a backend.
    pub interval: Duration,

    /// A check without an answer after this time has failed.
    pub timeout: Duration,

    /// Successes in a row that bring a backend back.
    #[schemars(range(min = 1, max = 100))]
    pub healthy_threshold: u32,

    /// Failures in a row that take a backend out.
    #[schemars(range(min = 1, max = 100))]
    pub unhealthy_threshold: u32,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            healthy_threshold: 1,
            unhealthy_threshold: 3,
        }
    }
}
