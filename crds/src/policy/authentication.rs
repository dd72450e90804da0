//! Authentication as users write it in a policy: keys come from a Secret of the policy's namespace.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    JwtSpec,
    tls::{KEY_PATTERN, SECRET_PATTERN},
};
use crate::config::{AllowRule, HEADER_PATTERN, MAX_ALLOW_RULES, default_api_key_header};

/// Lets in who is known by one of these ways, and answers others with 401; those who are known and not allowed get 403.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "has(self.apiKeys) || has(self.jwt) || self.clientCertificates",
    "message": "clients are known by apiKeys, by jwt, by clientCertificates, or by several of them",
}), json!({
    "rule": "!has(self.apiKeys) || !has(self.jwt) || self.apiKeys.header.lowerAscii() != self.jwt.header.lowerAscii()",
    "message": "apiKeys and jwt each have a header of their own",
}), json!({
    "rule": "has(self.jwt) || !has(self.allow) || self.allow.all(rule, !has(rule.claims))",
    "message": "claims are those of tokens: add jwt",
})]))]
pub struct AuthenticationSpec {
    /// By a key in a header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_keys: Option<ApiKeysSpec>,

    /// By a token of an issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<JwtSpec>,

    /// By a certificate that the listener's `tls.clientCa` has verified.
    pub client_certificates: bool,

    /// Who of them is let in: whom any of the rules fits. Without rules, all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_ALLOW_RULES), extend("x-kubernetes-list-type" = "atomic"))]
    pub allow: Vec<AllowRule>,
}

/// Keys of clients.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeysSpec {
    /// Secret with a client on each line: its name, a space, and its key of at least 16 characters. An edit counts within
    /// about a minute.
    pub secret: ApiKeysSecret,

    /// The header that clients send their key in. With Authorization, the key stands there alone or after `Bearer`.
    #[serde(default = "default_api_key_header")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub header: String,
}

/// One key of a Secret of the policy's namespace. A pod waits to start until it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApiKeysSecret {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_PATTERN))]
    pub name: String,

    /// Key in it, with the lines.
    #[serde(default = "keys")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn keys() -> String {
    "keys".to_owned()
}
