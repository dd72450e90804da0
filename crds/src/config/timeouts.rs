//! How long a request, and each part of it, may take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::units::Duration;

/// Time limits of a listener's requests. Except for `total`, none of them bounds how long a body may take while it moves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "[self.connect, self.firstByte, self.idle].all(limit, limit.matches('[1-9]')) && (!has(self.total) || self.total.matches('[1-9]'))",
    "message": "connect, firstByte, idle and total are longer than zero",
})]))]
pub struct Timeouts {
    /// A connection to a backend must be open after this time, TLS included. Otherwise another backend is tried.
    pub connect: Duration,

    /// A GET or HEAD whose answer has not begun after this time is sent to another backend, if there is one.
    pub first_byte: Duration,

    /// A request of which nothing moves for this time, neither its body nor its answer, has failed; a client's connection
    /// without a request is closed. Object stores may be silent for minutes while they copy or assemble an object.
    pub idle: Duration,

    /// From the head of a request to the end of its answer, retries and bodies included. Without it there is no such limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,

    /// How long an unused connection to a backend is kept for the next request. It has to be less than the backend's own time,
    /// which is 5 s for some servers. 0s keeps none.
    pub keep_alive: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            first_byte: Duration::from_secs(5),
            idle: Duration::from_secs(300),
            total: None,
            keep_alive: Duration::from_secs(3),
        }
    }
}
