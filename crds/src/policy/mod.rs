//! SidecarPolicy: which opted-in pods get the sidecar, and what it does there.
//!
//! Whatever schema and CEL can know is refused at `kubectl apply`; what only the cluster can know becomes a condition.

mod authentication;
mod http;
mod injection;
mod jwt;
mod l4;
mod observe;
mod secrets;
mod server_check;
mod status;
mod tls;

pub use authentication::{ApiKeysSecret, ApiKeysSpec, AuthenticationSpec};
pub use http::{BackendReference, HttpListenerSpec, ServicePort, ServiceReference, SiteSpec};
pub use injection::{Injection, LogLevel, Mode, ResourceAmounts, Resources, VolumeMount};
pub use jwt::{JwksSecret, JwksSpec, JwtSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
pub use l4::{TcpListenerSpec, TcpRouteSpec, UdpListenerSpec};
pub use observe::{HeadersSecret, TraceExportSpec, TracingSpec};
use schemars::JsonSchema;
pub use secrets::SecretKeys;
use serde::{Deserialize, Serialize};
use serde_json::json;
pub use server_check::{PasswordSecret, PostgresCheckSpec, RedisCheckSpec, ServerCheckSpec};
pub use status::{PodCounts, SidecarPolicyStatus, conditions};
pub use tls::{
    ClientCaSpec, ListenerTlsSpec, SecretKeyReference, SecretReference, SiteTlsSpec, TLS_CERTIFICATE,
    TLS_KEY, TcpBackendTlsSpec, TcpListenerTlsSpec,
};

use crate::config::MAX_LISTENERS;

/// Injects one sidecar into the opted-in pods of this namespace, and says what it does there.
#[derive(CustomResource, Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[expect(clippy::duplicated_attributes, reason = "two columns of one type")]
#[kube(
    group = "sidecar.io",
    version = "v1alpha1",
    kind = "SidecarPolicy",
    plural = "sidecarpolicies",
    shortname = "scp",
    category = "sidecar",
    namespaced,
    status = "SidecarPolicyStatus",
    derive = "PartialEq",
    doc = "Injects one sidecar into the pods of this namespace that are annotated sidecar.io/inject: \"true\", and says what it does there.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the policy is accepted, resolved and applied"
    ),
    printcolumn(
        name = "Matched",
        type_ = "integer",
        json_path = ".status.pods.matched",
        description = "Opted-in pods that this policy is chosen for"
    ),
    printcolumn(
        name = "Current",
        type_ = "integer",
        json_path = ".status.pods.current",
        description = "Matched pods whose sidecar has the shape the policy gives now"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!has(self.http) || self.http.all(l, !l.address.startsWith('unix:') || self.injection.volumeMounts.exists(m, l.address.startsWith('unix:' + m.mountPath + '/')))",
    "message": "the Unix socket of a listener lies in a volume of the pod: add the volume to injection.volumeMounts",
}), json!({
    "rule": "!has(self.tcp) || self.tcp.all(l, !l.address.startsWith('unix:') || self.injection.volumeMounts.exists(m, l.address.startsWith('unix:' + m.mountPath + '/')))",
    "message": "the Unix socket of a listener lies in a volume of the pod: add the volume to injection.volumeMounts",
}), json!({
    "rule": "!has(self.http) || !has(self.tcp) || self.http.all(a, self.tcp.all(b, has(a.port) && has(b.port) ? a.port != b.port || (a.address != b.address && !(a.address in ['0.0.0.0', '::']) && !(b.address in ['0.0.0.0', '::'])) : a.address != b.address))",
    "message": "a tcp listener and an http listener cannot share one address and port: give each its own port, or its own path",
}), json!({
    "rule": "!has(self.http) || ((!has(self.tcp) || self.tcp.all(b, !self.http.exists(a, a.name == b.name))) && (!has(self.udp) || self.udp.all(b, !self.http.exists(a, a.name == b.name))))",
    "message": "listeners of http, tcp and udp need different names",
}), json!({
    "rule": "!has(self.tcp) || !has(self.udp) || self.tcp.all(a, !self.udp.exists(b, a.name == b.name))",
    "message": "listeners of http, tcp and udp need different names",
})]))]
pub struct SidecarPolicySpec {
    /// Which of the opted-in pods of the namespace get this policy. Empty, the default, means all of them.
    #[serde(default)]
    pub pod_selector: LabelSelector,

    /// Among the policies that select a pod the highest priority wins, then the oldest policy, then the first name.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,

    /// How the sidecar's container is made.
    #[serde(default)]
    pub injection: Injection,

    /// HTTP listeners that the sidecar opens for the application.
    #[serde(default)]
    #[schemars(
        length(max = MAX_LISTENERS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]),
        extend("x-kubernetes-validations" = [json!({
            "rule": "self.all(a, self.exists_one(b, has(a.port) && has(b.port) ? a.port == b.port && (a.address == b.address || a.address in ['0.0.0.0', '::'] || b.address in ['0.0.0.0', '::']) : a.address == b.address))",
            "message": "two listeners cannot share one address and port: give each its own port, or its own path",
        })])
    )]
    pub http: Vec<HttpListenerSpec>,

    /// TCP listeners that the sidecar opens for the application: each connection goes to one backend, byte for byte.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_LISTENERS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]),
        extend("x-kubernetes-validations" = [json!({
            "rule": "self.all(a, self.exists_one(b, has(a.port) && has(b.port) ? a.port == b.port && (a.address == b.address || a.address in ['0.0.0.0', '::'] || b.address in ['0.0.0.0', '::']) : a.address == b.address))",
            "message": "two listeners cannot share one address and port: give each its own port, or its own path",
        })])
    )]
    pub tcp: Vec<TcpListenerSpec>,

    /// UDP listeners that the sidecar opens for the application: a client's datagrams go to one backend, and its answers back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_LISTENERS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]),
        extend("x-kubernetes-validations" = [json!({
            "rule": "self.all(a, self.exists_one(b, a.port == b.port && (a.address == b.address || a.address in ['0.0.0.0', '::'] || b.address in ['0.0.0.0', '::'])))",
            "message": "two listeners cannot share one address and port: give each its own port",
        })])
    )]
    pub udp: Vec<UdpListenerSpec>,
}
