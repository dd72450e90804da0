//! How the sidecar's container is made: its mode, image, resources and log level.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::units::{Duration, Quantity, UnitError};

/// Volumes of the pod that the sidecar may mount too.
const MAX_VOLUME_MOUNTS: u32 = 8;

/// The injected container. A change of anything but `drainTimeout` makes running pods outdated, not different.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Injection {
    /// Native: a sidecar in the sense of Kubernetes, in initContainers. Container: an ordinary container.
    /// Auto: Native where every node runs 1.29 or newer.
    pub mode: Mode,

    /// The sidecar's image; the operator's own release by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$"))]
    pub image: Option<String>,

    /// CPU and memory of the sidecar. Unset amounts have defaults, but for the CPU limit, which is none.
    pub resources: Resources,

    /// How long requests in flight may take to finish once the pod is being deleted.
    pub drain_timeout: Duration,

    /// How much the sidecar logs.
    pub log_level: LogLevel,

    /// Volumes of the pod that the sidecar mounts too, for Unix sockets that it shares with the application. A pod without such
    /// a volume is refused.
    #[schemars(
        length(max = MAX_VOLUME_MOUNTS),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["mountPath"])
    )]
    pub volume_mounts: Vec<VolumeMount>,
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            mode: Mode::Auto,
            image: None,
            resources: Resources::default(),
            drain_timeout: crate::config::default_drain_timeout(),
            log_level: LogLevel::Info,
            volume_mounts: Vec::new(),
        }
    }
}

/// A volume of the pod, as the sidecar sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    json!({
        "rule": "!self.name.startsWith('sidecar-')",
        "message": "volumes named sidecar-* are the sidecar's own: name a volume of the pod",
    }),
    json!({
        "rule": "!['/etc/sidecar', '/var/run/sidecar', '/var/run/sidecar-secrets', '/var/run/secrets'].exists(own, self.mountPath == own || self.mountPath.startsWith(own + '/') || own.startsWith(self.mountPath + '/'))",
        "message": "/etc/sidecar, /var/run/sidecar, /var/run/sidecar-secrets and /var/run/secrets are the sidecar's own: choose another path",
    }),
]))]
pub struct VolumeMount {
    /// Name of the volume in the pod.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Where the sidecar finds it, which may be another path than the application's.
    #[schemars(length(min = 2, max = 100), regex(pattern = "^(/[-A-Za-z0-9_@%+=][-A-Za-z0-9._@%+=]*)+$"))]
    pub mount_path: String,

    /// Whether the sidecar cannot write there. It still can connect to sockets.
    #[serde(default)]
    pub read_only: bool,
}

/// How the sidecar's container starts and stops with the pod.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Mode {
    #[default]
    Auto,
    Native,
    Container,
}

/// How much the sidecar logs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogLevel {
    Error,
    Warn,
    #[default]
    Info,
    Debug,
    Trace,
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl FromStr for LogLevel {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        [Self::Error, Self::Warn, Self::Info, Self::Debug, Self::Trace]
            .into_iter()
            .find(|level| level.to_string() == text)
            .ok_or_else(|| {
                UnitError(format!("{text:?} is not a log level; write error, warn, info, debug or trace"))
            })
    }
}

impl FromStr for Mode {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text {
            "Auto" => Ok(Self::Auto),
            "Native" => Ok(Self::Native),
            "Container" => Ok(Self::Container),
            _ => Err(UnitError(format!("{text:?} is not a mode; write Auto, Native or Container"))),
        }
    }
}

/// CPU and memory, requested and at most.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [
    json!({
        "rule": "!has(self.requests) || !has(self.limits) || !has(self.requests.cpu) || !has(self.limits.cpu) || quantity(string(self.requests.cpu)).compareTo(quantity(string(self.limits.cpu))) <= 0",
        "message": "requests.cpu is more than limits.cpu: raise the limit or lower the request",
    }),
    json!({
        "rule": "!has(self.requests) || !has(self.limits) || !has(self.requests.memory) || !has(self.limits.memory) || quantity(string(self.requests.memory)).compareTo(quantity(string(self.limits.memory))) <= 0",
        "message": "requests.memory is more than limits.memory: raise the limit or lower the request",
    }),
]))]
pub struct Resources {
    /// What the scheduler sets aside. Default: 50m CPU and 32Mi memory.
    pub requests: ResourceAmounts,
    /// What the sidecar may use at most. Default: 128Mi memory, and no CPU limit, since that throttles.
    pub limits: ResourceAmounts,
}

/// An amount of CPU and of memory.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ResourceAmounts {
    /// Cores, such as 50m or 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Quantity>,
    /// Bytes, such as 128Mi.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Quantity>,
}
