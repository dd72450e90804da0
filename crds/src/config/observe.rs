//! What a listener tells of its requests: the access log, and traces.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackendTls, balance::is_default};
use crate::units::{HttpUrl, StatusRange};

/// Names of query parameters that one listener may add to those that are never written.
pub const MAX_REDACTED: u32 = 16;

/// Status codes, or ranges of them, that one access log may be confined to.
pub const MAX_LOGGED_STATUSES: u32 = 16;

/// One line on standard output for each request, for each check of a backend, or for both.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct AccessLog {
    /// How a line looks: Json is one object, Text is `name=value` with spaces between. Both have the same fields.
    pub format: AccessLogFormat,

    /// What there are lines of. Requests, the default: those of clients. Checks: those that the sidecar makes of its backends; their `kind` is
    /// Check, and they have no client. All: both.
    #[serde(skip_serializing_if = "is_default")]
    pub of: LoggedKind,

    /// Writes only what was answered with one of these status codes, each alone or as a range such as `500-599`. What came
    /// to nothing has no status, and is not written then. Without it, lines of all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_LOGGED_STATUSES), extend("x-kubernetes-list-type" = "atomic"))]
    pub statuses: Vec<StatusRange>,

    /// Writes only what failed: answered with 400 or more, by the sidecar itself or not at all, or with an answer that broke
    /// off; of checks those that were not good. With `statuses`, what is both.
    #[serde(skip_serializing_if = "is_default")]
    pub errors_only: bool,

    /// Of this many requests one is written, chosen at random from those that are to be written. Requests that came to nothing,
    /// those answered with 500 or more or by the sidecar itself, and checks are always written.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample_one_in: NonZeroU32,

    /// Names of query parameters whose values are secret, in any case, beside those that are known to be: signatures,
    /// credentials, tokens, keys and passwords.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_REDACTED), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub redact: Vec<String>,
}

/// Lines on standard output about the connections of a TCP listener or the sessions of a UDP listener, one for each when it has
/// ended. Nothing that they carried is in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectionLog {
    /// How a line looks: Json is one object, Text is `name=value` with spaces between. Both have the same fields.
    pub format: AccessLogFormat,

    /// Writes only those that did not come to a regular end: those with a cause.
    #[serde(skip_serializing_if = "is_default")]
    pub errors_only: bool,

    /// Of this many one is written, chosen at random. Those with a cause are always written.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample_one_in: NonZeroU32,
}

/// How a line of the access log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum AccessLogFormat {
    #[default]
    Json,
    Text,
}

/// What the access log has lines of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum LoggedKind {
    #[default]
    Requests,
    Checks,
    All,
}

impl LoggedKind {
    pub fn has_requests(self) -> bool {
        self != Self::Checks
    }

    pub fn has_checks(self) -> bool {
        self != Self::Requests
    }
}

/// W3C Trace Context: a valid `traceparent` goes on as it came, with its `tracestate`; a request without one gets one. With
/// export, the sidecar is a step of each sampled trace: backends are told of its span as their parent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Tracing {
    /// Of this many requests that come without a trace, one is marked as sampled, chosen at random. A trace that a client
    /// began keeps its mark.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub sample_one_in: NonZeroU32,

    /// Tells a collector of each request whose trace is sampled. Without it none is told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub export: Option<TraceExport>,
}

/// Where spans go: OTLP over HTTP, as protobuf, in batches. While the collector is slow or gone, spans are dropped; requests
/// never wait.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TraceExport {
    /// The collector's address for traces, such as `http://collector.observability:4318/v1/traces`.
    pub url: HttpUrl,

    /// Whom to trust at an https URL. Without it the system's CAs; in the sidecar's image they are those that Mozilla trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,

    /// File with headers that the collector asks for, `Name: value` on each line, such as its key. It is read for each batch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub headers_file: Option<String>,

    /// Name of the service that spans belong to: `service.name`.
    #[serde(default = "default_service_name")]
    #[schemars(length(min = 1, max = 255))]
    pub service_name: String,
}

pub fn default_service_name() -> String {
    "sidecar".to_owned()
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            format: AccessLogFormat::default(),
            of: LoggedKind::default(),
            statuses: Vec::new(),
            errors_only: false,
            sample_one_in: NonZeroU32::MIN,
            redact: Vec::new(),
        }
    }
}

impl Default for ConnectionLog {
    fn default() -> Self {
        Self { format: AccessLogFormat::default(), errors_only: false, sample_one_in: NonZeroU32::MIN }
    }
}

impl Default for Tracing {
    fn default() -> Self {
        Self { sample_one_in: NonZeroU32::MIN, export: None }
    }
}
