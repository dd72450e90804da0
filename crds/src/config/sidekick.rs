//! What a listener does for applications that know MinIO's sidekick. All of it is off unless it is asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Paths that the listener answers itself, as MinIO's sidekick does. Each hides an object: the first two in the bucket `v1`. Rate
/// limits do not count them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SidekickPaths {
    /// GET `/v1/health` is answered with 200 while a site has a live backend, and with 502 otherwise.
    /// Whoever can connect may ask, whatever `authentication` wants.
    pub health: bool,

    /// GET `/v1/certificates` is answered with the certificate that the listener made for itself, in PEM, and with 404 if
    /// it made none. Whoever can connect may ask.
    pub certificates: bool,

    /// GET `/.prometheus/metrics` is answered with requests, errors and bytes by backend, under sidekick's names. Clients must
    /// be let in by `authentication`, where there is one.
    pub metrics: bool,
}

/// How an application is told that no backend could serve its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DownAnswer {
    /// 503, 502 or 504 with the reasons as plain text.
    #[default]
    Text,
    /// 502 with the S3 error `BackendDown` in XML and `Retry-After: 120`, as MinIO's sidekick does.
    BackendDown,
}
