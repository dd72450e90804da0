//! Clients that are known by a token of an issuer.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{BackendTls, balance::HEADER_PATTERN};
use crate::units::{Duration, HttpUrl};

pub const MAX_AUDIENCES: u32 = 16;
pub const MAX_CLAIM_HEADERS: u32 = 16;
pub const MAX_CLAIMS: u32 = 8;
pub const MAX_CLAIM_VALUES: u32 = 32;

/// More would make expired tokens good.
pub const LONGEST_LEEWAY: Duration = Duration::from_secs(600);
/// Key sets are fetched anew after a time in these bounds.
pub const SHORTEST_REFRESH: Duration = Duration::from_secs(10);
pub const LONGEST_REFRESH: Duration = Duration::from_secs(24 * 3600);

/// JSON Web Tokens of one issuer. A token without expiry (`exp`) is never good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Who must have issued the token: its claim `iss`, to the letter.
    #[schemars(length(min = 1, max = 512))]
    pub issuer: String,

    /// The token must be meant for one of these, by its claim `aud`. Without any, only tokens that name no audience are
    /// good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = MAX_AUDIENCES), inner(length(min = 1, max = 512)))]
    pub audiences: Vec<String>,

    /// The keys that the issuer signs with.
    pub jwks: Jwks,

    /// Algorithms of signatures that are good. Without any, all of these.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 9))]
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
    #[schemars(length(max = MAX_CLAIM_HEADERS))]
    pub claim_headers: Vec<ClaimHeader>,
}

/// A JSON Web Key Set (RFC 7517): exactly one of file and url.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Jwks {
    /// File of at most 1 MiB, which is read again when it is replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub file: Option<String>,

    /// Where the set is fetched from: at the start, then every `refresh`, and when a token names a key that is not in it, at
    /// most every 10 s. Until it was fetched once, tokens are answered with 503; after that the last good one is kept,
    /// however long the server fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<HttpUrl>,

    /// Whom to trust at an https URL. Without it the system's CAs; in the sidecar's image they are those that Mozilla trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,

    /// How often the set is fetched: 10s to 24h.
    #[serde(default = "default_refresh")]
    pub refresh: Duration,
}

/// Algorithms of signatures by a key that only the issuer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum JwtAlgorithm {
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

/// One claim that a backend is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimHeader {
    /// The claim, such as sub; `a.b` is b within a, unless there is a claim of that name. Texts, numbers, true and false go
    /// into the header, and lists of them with commas between. Without the claim there is no header.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,

    /// The header.
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER_PATTERN))]
    pub header: String,
}

/// What a token must say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimRule {
    /// The claim, such as groups; `a.b` is b within a, unless there is a claim of that name.
    #[schemars(length(min = 1, max = 256))]
    pub claim: String,

    /// The claim is one of these, or a list with one of them; `scope` and `scp` may be lists with spaces between. A `*` at the
    /// end stands for any rest.
    #[schemars(
        length(min = 1, max = MAX_CLAIM_VALUES),
        inner(length(min = 1, max = 512)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub values: Vec<String>,
}

pub fn default_leeway() -> Duration {
    Duration::from_secs(30)
}

pub fn default_refresh() -> Duration {
    Duration::from_secs(300)
}

pub fn default_token_header() -> String {
    "Authorization".to_owned()
}

pub fn default_forward() -> bool {
    true
}
