//! Who may send requests to a listener.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{ClaimRule, Jwt, MAX_CLAIMS, balance::HEADER_PATTERN};

pub const MAX_ALLOW_RULES: u32 = 16;
pub const MAX_ALLOWED_NAMES: u32 = 64;

/// Lets in who is known by one of these ways, and answers others with 401; those who are known and not allowed get 403.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Authentication {
    /// By a key in a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_keys: Option<ApiKeys>,

    /// By a token of an issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,

    /// By a certificate that the listener's `tls.clientCa` has verified.
    pub client_certificates: bool,

    /// Who of them is let in: whom any of the rules fits. Without rules, all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ALLOW_RULES))]
    pub allow: Vec<AllowRule>,
}

/// Keys of clients, in a file that is read again when it is replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeys {
    /// File with a client on each line: its name, a space, and its key of at least 16 characters. A name may have several
    /// keys. Empty lines and those that begin with # are left out.
    #[schemars(length(min = 1, max = 1024))]
    pub file: String,

    /// The header that clients send their key in. With Authorization, the key stands there alone or after `Bearer`.
    #[serde(default = "default_api_key_header")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub header: String,
}

/// Clients that are let in: those that have one of the names, and all of the claims.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "(has(self.names) && size(self.names) > 0) || (has(self.claims) && size(self.claims) > 0)",
    "message": "a rule has names, claims or both",
})]))]
pub struct AllowRule {
    /// Names of API keys, subjects (`sub`) of tokens, and common names, DNS names, URIs and e-mail addresses of certificates.
    /// A `*` at the end stands for any rest, as in `spiffe://example.org/ns/analytics/*`. Without any, all names are let in
    /// whose claims are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = MAX_ALLOWED_NAMES),
        inner(length(min = 1, max = 253)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub names: Vec<String>,

    /// What a token must say: all of these. Clients without a token do not say it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_CLAIMS), extend("x-kubernetes-list-type" = "atomic"))]
    pub claims: Vec<ClaimRule>,
}

/// X-Api-Key, as most clients have it.
pub fn default_api_key_header() -> String {
    "X-Api-Key".to_owned()
}
