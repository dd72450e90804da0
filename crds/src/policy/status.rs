//! What the controller reports about a policy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Types of the conditions, in the order in which one needs the one before.
pub mod conditions {
    /// The policy itself is valid.
    pub const ACCEPTED: &str = "Accepted";
    /// Everything that the policy names exists and consents.
    pub const RESOLVED_REFS: &str = "ResolvedRefs";
    /// The configuration is written and the pods' rights are granted.
    pub const READY: &str = "Ready";
}

/// What the controller last saw and did.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SidecarPolicyStatus {
    /// `metadata.generation` of the policy that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Accepted, ResolvedRefs and Ready, each with a message that says what to do.
    #[schemars(
        length(max = 8),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<Condition>,

    /// Counts of the pods that this policy is chosen for.
    pub pods: PodCounts,
}

/// Counts of opted-in, unfinished pods.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PodCounts {
    /// Pods that this policy is chosen for.
    pub matched: u32,
    /// Matched pods whose sidecar has the shape that the policy gives now.
    pub current: u32,
    /// Matched pods whose sidecar has another shape: restart them to bring them up to date.
    pub outdated: u32,
    /// Matched pods without a sidecar, created before they were opted in or while injection was off: restart them.
    pub missed: u32,
}
