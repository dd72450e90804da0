//! TLS as users write it in a policy: certificates, keys and CAs come from Secrets of the policy's namespace, which the kubelet
//! mounts into the sidecar alone.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    config::{ClientCaMode, PlainText, SelfSigned, TcpProtocol, TlsVersion},
    units::DnsName,
};

pub(super) const SECRET_PATTERN: &str = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
pub(super) const KEY_PATTERN: &str = "^[-_A-Za-z0-9][-._A-Za-z0-9]*$";

/// The keys of a Secret of type kubernetes.io/tls.
pub const TLS_CERTIFICATE: &str = "tls.crt";
pub const TLS_KEY: &str = "tls.key";

/// A listener that speaks TLS 1.2 and 1.3.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "has(self.certificateSecret) != has(self.selfSigned)",
    "message": "the certificate comes from certificateSecret, or it is selfSigned",
})]))]
pub struct ListenerTlsSpec {
    /// Secret of type kubernetes.io/tls, such as cert-manager keeps. A renewed certificate is used without a restart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate_secret: Option<SecretReference>,

    /// Instead of a Secret: a certificate that each sidecar makes for itself at its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,

    /// Asks clients for a certificate. Without it none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<ClientCaSpec>,

    /// Oldest version that is spoken.
    #[serde(default = "TlsVersion::oldest", skip_serializing_if = "TlsVersion::is_oldest")]
    pub min_version: TlsVersion,
}

/// TLS of a TCP listener's clients, and how they come to it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpListenerTlsSpec {
    #[serde(flatten)]
    pub settings: ListenerTlsSpec,

    /// Clients ask for TLS in words of their protocol first. Postgres: by SSLRequest, as every client of PostgreSQL can
    /// (`sslmode=require` or stricter); one that begins with TLS at once (`sslnegotiation=direct`) is served too. Without it TLS
    /// begins with the first byte.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_tls: Option<TcpProtocol>,

    /// What becomes of clients that go on without having asked for TLS. Refuse: they are told to ask for it. Allow: they are served
    /// in plain text, without a certificate of theirs too, whatever clientCa says.
    #[serde(default, skip_serializing_if = "PlainText::is_refused")]
    pub plain_text: PlainText,
}

/// TLS towards the backends of a TCP listener, and how it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpBackendTlsSpec {
    #[serde(flatten)]
    pub settings: SiteTlsSpec,

    /// Backends are asked for TLS in words of their protocol first. Postgres: by SSLRequest, which every PostgreSQL and CockroachDB
    /// understands. Without it TLS begins with the first byte; of PostgreSQL only 17 and newer understand that, with `protocol:
    /// Postgres`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_tls: Option<TcpProtocol>,
}

/// Who may connect to a listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCaSpec {
    /// Secret with the CAs that sign the certificates of clients.
    pub secret: SecretKeyReference,

    /// Required refuses clients without a certificate; Optional lets them in. One of another CA is always refused.
    #[serde(default)]
    pub mode: ClientCaMode,
}

/// TLS towards the backends of a site: whom to trust, who to be, and which versions to speak.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "!self.insecureSkipVerify || !has(self.caSecret)",
    "message": "insecureSkipVerify trusts everyone, whatever caSecret says: remove one of them",
}), json!({
    "rule": "!has(self.minVersion) || !has(self.maxVersion) || self.minVersion <= self.maxVersion",
    "message": "minVersion is not newer than maxVersion: remove one of the two",
})]))]
pub struct SiteTlsSpec {
    /// Secret with the CAs that sign the certificates of backends. Without it those that Mozilla trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_secret: Option<SecretKeyReference>,

    /// Name that backends must have in their certificates, and that they are asked for (SNI). By default the DNS name
    /// that the backend was found by, `NAME.NAMESPACE.svc` for a Service, the address for a static one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<DnsName>,

    /// Encrypts without verifying who answers: anyone in between can read and change everything. For tests alone.
    pub insecure_skip_verify: bool,

    /// Secret of type kubernetes.io/tls with the sidecar's own certificate, for backends that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret: Option<SecretReference>,

    /// Oldest version that is spoken.
    #[serde(skip_serializing_if = "TlsVersion::is_oldest")]
    pub min_version: TlsVersion,

    /// Newest version that is spoken.
    #[serde(skip_serializing_if = "TlsVersion::is_newest")]
    pub max_version: TlsVersion,
}

impl Default for SiteTlsSpec {
    fn default() -> Self {
        Self {
            ca_secret: None,
            server_name: None,
            insecure_skip_verify: false,
            client_certificate_secret: None,
            min_version: TlsVersion::oldest(),
            max_version: TlsVersion::default(),
        }
    }
}

/// A Secret of the policy's namespace. A pod waits to start until it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_PATTERN))]
    pub name: String,
}

/// One key of a Secret of the policy's namespace. A pod waits to start until it is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SECRET_PATTERN))]
    pub name: String,

    /// Key in it, with certificates in PEM.
    #[serde(default = "ca_key")]
    #[schemars(length(min = 1, max = 253), regex(pattern = KEY_PATTERN))]
    pub key: String,
}

fn ca_key() -> String {
    "ca.crt".to_owned()
}
