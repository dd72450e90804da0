//! Traces as users write them in a policy: what a collector asks for comes from a Secret of the policy's namespace.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    SiteTlsSpec,
    tls::{KEY_PATTERN, SECRET_PATTERN},
};
use crate::{config::default_service_name, units::HttpUrl};

/// W3C Trace Context: a valid `traceparent` goes on as it came, with its `tracestate`; a request without one gets one. With
/// export, the sidecar is a step of each sampled trace: backends are told of its span as their parent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TracingSpec {
    /// Of this many requests that come without a trace, one is marked as sampled, chosen at random. A trace that a client
    /// began keeps its mark.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample_one_in: NonZeroU32,

    /// Tells a collector of each request whose trace is sampled. Without it none is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<TraceExportSpec>,
}

/// Where spans go: OTLP over HTTP, as protobuf, in batches. While the collector is slow or gone, spans are dropped; requests
/// never wait.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!has(self.tls) || self.url.startsWith('https://')",
    "message": "tls is for an https URL",
})]))]
pub struct TraceExportSpec {
    /// The collector's address for traces, such as `http://collector.observability:4318/v1/traces`.
    pub url: HttpUrl,

    /// Whom to trust at an https URL. Without it those that Mozilla trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SiteTlsSpec>,

    /// Secret with headers that the collector asks for, `Name: value` on each line, such as its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub headers_secret: Option<HeadersSecret>,

    /// Name of the service that spans belong to: `service.name`.
    #[serde(default = "default_service_name")]
    #[schemars(length(min = 1, max = 255))]
    pub service_name: String,
}

/// One key of a Secret of the policy's namespace. A pod waits to start until it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeadersSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_PATTERN))]
    pub name: String,

    /// Key in it, with the lines.
    #[serde(default = "headers")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

impl Default for TracingSpec {
    fn default() -> Self {
        Self { sample_one_in: NonZeroU32::MIN, export: None }
    }
}

fn headers() -> String {
    "headers".to_owned()
}
