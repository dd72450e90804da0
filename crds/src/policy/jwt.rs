//! Tokens as users write them in a policy: a key set comes from a Secret of the policy's namespace, or from a URL.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    SiteTlsSpec,
    tls::{KEY_PATTERN, SECRET_PATTERN},
};
use crate::{
    config::{
        ClaimHeader, HEADER_PATTERN, JwtAlgorithm, MAX_AUDIENCES, MAX_CLAIM_HEADERS, default_forward,
        default_leeway, default_refresh, default_token_header,
    },
    units::{Duration, HttpUrl},
};

/// JSON Web Tokens of one issuer. A token without expiry (`exp`) is never good.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "duration(self.leeway) <= duration('10m')",
    "message": "leeway is at most 10m",
})]))]
pub struct JwtSpec {
    /// Who must have issued the token: its claim `iss`, to the letter.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,

    /// The token must be meant for one of these, by its claim `aud`. Without any, only tokens that name no audience are
    /// good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_AUDIENCES),
        inner(length(min = 1, max = 512)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub audiences: Vec<String>,

    /// The keys that the issuer signs with.
    pub jwks: JwksSpec,

    /// Algorithms of signatures that are good. Without any, all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9), extend("x-kubernetes-list-type" = "atomic"))]
    pub algorithms: Vec<JwtAlgorithm>,

    /// How far the clocks of issuer and sidecar may be apart; at most 10m.
    #[serde(default = "default_leeway")]
    pub leeway: Duration,

    /// The header with the token. In Authorization it stands after `Bearer`; in others so, or alone.
    #[serde(default = "default_token_header")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub header: String,

    /// Whether the token goes on to the backend.
    #[serde(default = "default_forward")]
    pub forward: bool,

    /// Claims that the backend is told of in headers. What a client sends by these names never goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CLAIM_HEADERS), extend("x-kubernetes-list-type" = "atomic"))]
    pub claim_headers: Vec<ClaimHeader>,
}

/// A JSON Web Key Set (RFC 7517): exactly one of secret and url.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "has(self.secret) != has(self.url)",
    "message": "the key set comes from secret, or from url",
}), json!({
    "rule": "!has(self.tls) || (has(self.url) && self.url.startsWith('https://'))",
    "message": "tls is for an https URL",
}), json!({
    "rule": "duration(self.refresh) >= duration('10s') && duration(self.refresh) <= duration('24h')",
    "message": "refresh is 10s to 24h",
})]))]
pub struct JwksSpec {
    /// Secret with the set. An edit counts within about a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<JwksSecret>,

    /// Where the set is fetched from: at the start, then every `refresh`, and when a token names a key that is not in it, at
    /// most every 10 s. Until it was fetched once, tokens are answered with 503; after that the last good one is kept,
    /// however long the server fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<HttpUrl>,

    /// Whom to trust at an https URL. Without it those that Mozilla trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SiteTlsSpec>,

    /// How often the set is fetched: 10s to 24h.
    #[serde(default = "default_refresh")]
    pub refresh: Duration,
}

/// One key of a Secret of the policy's namespace. A pod waits to start until it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwksSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_PATTERN))]
    pub name: String,

    /// Key in it, with the set as JSON.
    #[serde(default = "set")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn set() -> String {
    "jwks.json".to_owned()
}
