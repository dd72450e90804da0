//! TLS of listeners and of sites: files that the sidecar reads, and reads again when they are replaced.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::units::DnsName;

/// Names that one self-signed certificate may have.
pub const MAX_SELF_SIGNED_HOSTS: u32 = 16;

/// A listener that speaks TLS 1.2 and 1.3, with a certificate from files or one of its own making.
/// [`ListenerTls::certificate`] parses which.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// PEM file of the listener's certificate, followed by the intermediate ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub certificate_file: Option<String>,

    /// PEM file of the certificate's private key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_file: Option<String>,

    /// File with the password of the key, where it is encrypted (PKCS #8). A line break at its end is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_password_file: Option<String>,

    /// Instead of files: a certificate that the sidecar makes for itself at each start and keeps in memory alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub self_signed: Option<SelfSigned>,

    /// Asks clients for a certificate. Without it none is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<ClientCa>,

    /// Oldest version that is spoken.
    #[serde(default = "TlsVersion::oldest", skip_serializing_if = "TlsVersion::is_oldest")]
    pub min_version: TlsVersion,

    /// Newest version that is spoken.
    #[serde(default, skip_serializing_if = "TlsVersion::is_newest")]
    pub max_version: TlsVersion,
}

/// TLS of a TCP listener's clients, and how they come to it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpListenerTls {
    #[serde(flatten)]
    pub settings: ListenerTls,

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
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TcpBackendTls {
    #[serde(flatten)]
    pub settings: BackendTls,

    /// Backends are asked for TLS in words of their protocol first. Postgres: by SSLRequest, which every PostgreSQL and CockroachDB
    /// understands. Without it TLS begins with the first byte; of PostgreSQL only 17 and newer understand that, with `protocol:
    /// Postgres`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_tls: Option<TcpProtocol>,
}

/// What the connections of a TCP listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum TcpProtocol {
    Postgres,
}

/// What becomes of clients that speak no TLS where they could.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum PlainText {
    #[default]
    Refuse,
    Allow,
}

impl PlainText {
    pub(crate) fn is_refused(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A version of TLS. Older ones are broken, and not spoken.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[schemars(inline)]
pub enum TlsVersion {
    #[serde(rename = "TLSv1.2")]
    V12,
    #[default]
    #[serde(rename = "TLSv1.3")]
    V13,
}

impl TlsVersion {
    pub(crate) fn oldest() -> Self {
        Self::V12
    }

    pub(crate) fn is_oldest(&self) -> bool {
        *self == Self::V12
    }

    pub(crate) fn is_newest(&self) -> bool {
        *self == Self::V13
    }
}

impl Default for ListenerTls {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            key_password_file: None,
            self_signed: None,
            client_ca: None,
            min_version: TlsVersion::V12,
            max_version: TlsVersion::V13,
        }
    }
}

/// A certificate that nobody has signed but itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SelfSigned {
    /// Host names and IP addresses that clients know the listener by.
    #[schemars(length(min = 1, max = MAX_SELF_SIGNED_HOSTS))]
    pub hosts: Vec<DnsName>,
}

/// Who may connect to a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientCa {
    /// PEM file of the CAs that sign the certificates of clients.
    #[schemars(length(min = 1, max = 1024))]
    pub file: String,

    /// Required refuses clients without a certificate; Optional lets them in. One of another CA is always refused.
    #[serde(default)]
    pub mode: ClientCaMode,
}

/// What happens to clients without a certificate.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ClientCaMode {
    #[default]
    Required,
    Optional,
}

/// TLS towards the backends of a site: whom to trust, who to be, and which versions to speak.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTls {
    /// PEM file of the CAs that sign the certificates of backends. Without it the system's CAs are trusted; in the sidecar's
    /// image they are those that Mozilla trusts.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub ca_file: Option<String>,

    /// Name that backends must have in their certificates, and that they are asked for (SNI). By default the DNS name
    /// that the backend was found by, `NAME.NAMESPACE.svc` for a Service, the address for a static one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_name: Option<DnsName>,

    /// Encrypts without verifying who answers: anyone in between can read and change everything. For tests alone.
    pub insecure_skip_verify: bool,

    /// The sidecar's own certificate, for backends that ask for one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<KeyPairFiles>,

    /// Oldest version that is spoken.
    #[serde(skip_serializing_if = "TlsVersion::is_oldest")]
    pub min_version: TlsVersion,

    /// Newest version that is spoken.
    #[serde(skip_serializing_if = "TlsVersion::is_newest")]
    pub max_version: TlsVersion,
}

impl Default for BackendTls {
    fn default() -> Self {
        Self {
            ca_file: None,
            server_name: None,
            insecure_skip_verify: false,
            client_certificate: None,
            min_version: TlsVersion::V12,
            max_version: TlsVersion::V13,
        }
    }
}

/// A certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyPairFiles {
    /// PEM file of the certificate, followed by the intermediate ones.
    #[schemars(length(min = 1, max = 1024))]
    pub certificate_file: String,

    /// PEM file of the certificate's private key.
    #[schemars(length(min = 1, max = 1024))]
    pub key_file: String,

    /// File with the password of the key, where it is encrypted (PKCS #8). A line break at its end is not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub key_password_file: Option<String>,
}

/// Where a listener's certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenerCertificate {
    Files(KeyPairFiles),
    SelfSigned(SelfSigned),
}

impl ListenerTls {
    /// The one source of the certificate; `None` when there are none, several, or half a pair.
    pub fn certificate(&self) -> Option<ListenerCertificate> {
        match (&self.certificate_file, &self.key_file, &self.self_signed) {
            (Some(certificate), Some(key), None) => Some(ListenerCertificate::Files(KeyPairFiles {
                certificate_file: certificate.clone(),
                key_file: key.clone(),
                key_password_file: self.key_password_file.clone(),
            })),
            (None, None, Some(own)) if self.key_password_file.is_none() => {
                Some(ListenerCertificate::SelfSigned(own.clone()))
            }
            _ => None,
        }
    }
}
