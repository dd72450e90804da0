//! How many requests a listener lets through.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::balance::HEADER_PATTERN;
use crate::units::Duration;

pub const MAX_RATE_LIMITS: u32 = 8;

/// Longest time that requests are counted over.
pub const LONGEST_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Lets so many requests through, evenly over time, and answers the others with 429. Each sidecar counts for itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    json!({
        "rule": "self.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
        "message": "name is of lower-case letters, digits and dashes",
    }),
    json!({
        "rule": "(self.scope == 'Header') == has(self.header)",
        "message": "header is for scope Header, and needed there",
    }),
    json!({
        "rule": "duration(self.per) > duration('0s') && duration(self.per) <= duration('24h')",
        "message": "per is longer than zero, and at most 24h",
    }),
]))]
pub struct RateLimit {
    /// Names the limit in answers, metrics and errors. Unique within the listener.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// What is counted together: all requests of the listener, those of each client address (of IPv6, each /64 network), or
    /// those of each value of a header. A sidecar tells about 16,000 clients or values apart at once.
    #[serde(default)]
    pub scope: RateLimitScope,

    /// With scope Header: the header, such as X-Tenant. Requests without it count together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub header: Option<String>,

    /// Requests let through in the time `per`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests: NonZeroU32,

    /// The time that `requests` counts for; at most 24h.
    #[serde(default = "second")]
    pub per: Duration,

    /// Requests let through at once after a pause. Without it, `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub burst: Option<NonZeroU32>,
}

/// What a rate limit counts together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RateLimitScope {
    #[default]
    Listener,
    Client,
    Header,
}

fn second() -> Duration {
    Duration::from_secs(1)
}
