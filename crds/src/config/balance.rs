//! How requests are spread over backends, and which backends are left alone for a while.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::units::Duration;

/// Largest weight of a source of backends.
pub const MAX_WEIGHT: u32 = 1_000;

/// What a header's name consists of.
pub const HEADER_PATTERN: &str = "^[A-Za-z0-9!#$%&'*+.^_|~-]+$";

/// How a backend is chosen for a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Balance {
    #[default]
    LeastRequest,
    PeakEwma,
    RoundRobin,
    Random,
    HeaderHash,
}

/// Whether backends in the zone of the pod come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TrafficDistribution {
    #[default]
    Auto,
    PreferSameZone,
    None,
}

/// Takes a backend out for a while whose requests fail in a row while others of its site answer well. Failures are statuses
/// from 500 on but for 501 and a request to slow down, failed connects, broken connections and time-outs; never what the
/// application broke off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "self.baseEjectionTime.matches('[1-9]') && duration(self.baseEjectionTime) <= duration(self.maxEjectionTime)",
    "message": "baseEjectionTime is longer than zero and at most maxEjectionTime",
})]))]
pub struct OutlierDetection {
    /// Failures in a row that take a backend out. 0 switches this off.
    #[schemars(range(max = 1_000))]
    pub consecutive_errors: u32,

    /// How long a backend is out the first time; the second time in a row twice as long, and so on.
    pub base_ejection_time: Duration,

    /// How long a backend is out at most.
    pub max_ejection_time: Duration,

    /// Share of the site's usable backends that may be out at once, rounded down: with 50, one of two or three. The last
    /// one of the last site is never taken out.
    #[schemars(range(max = 100))]
    pub max_ejected_percent: u32,
}

impl Default for OutlierDetection {
    fn default() -> Self {
        Self {
            consecutive_errors: 5,
            base_ejection_time: Duration::from_secs(30),
            max_ejection_time: Duration::from_secs(300),
            max_ejected_percent: 50,
        }
    }
}

/// The most that this sidecar asks of one backend at once. Requests go to others, and where all have as much as they may,
/// the answer is 503 with Retry-After at once. Without a number there is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendLimits {
    /// Requests under way at one backend.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_requests: Option<u32>,

    /// Open connections to one backend, idle ones among them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: Option<u32>,

    /// Connections to one backend that are being opened, and the requests that wait for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_pending: Option<u32>,
}

pub(crate) fn default_weight() -> u32 {
    1
}

/// For fields that are left out where they say nothing, so that sidecars of an older release do not report them.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
