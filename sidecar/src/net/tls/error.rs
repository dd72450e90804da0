//! Why TLS cannot be set up: each message names the file, and what to do about it behind the semicolon.

use std::io;

/// Whoever wrote the files or the settings can fix all of these.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "{path} cannot be read: {source}; check that the file is there and that this process may read it"
    )]
    Unreadable { field: &'static str, path: String, source: io::Error },
    #[error("{path} has more than {limit} bytes; write the path of a PEM file")]
    TooLarge { field: &'static str, path: String, limit: u64 },
    #[error(
        "{path} has no certificate in PEM; it must have a part that begins with -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate { field: &'static str, path: String },
    #[error("certificate {number} in {path} cannot be read; put a certificate in PEM there")]
    BadCertificate { field: &'static str, path: String, number: usize },
    #[error(
        "{path} has no private key in PEM; it must have a part that begins with -----BEGIN PRIVATE KEY-----"
    )]
    NoKey { field: &'static str, path: String },
    #[error("the key in {path} is encrypted; name the file with its password in keyPasswordFile")]
    KeyEncrypted { field: &'static str, path: String },
    #[error(
        "the key in {path} is encrypted in a way that is not secure any more; convert it: openssl pkcs8 -topk8 -in KEY -out NEW"
    )]
    KeyEncryption { field: &'static str, path: String },
    #[error("the key in {path} cannot be decrypted; check the password in keyPasswordFile")]
    WrongPassword { field: &'static str, path: String },
    #[error(
        "the key in {path} cannot be used; use RSA of 2048 to 8192 bits, ECDSA P-256 or P-384, or Ed25519"
    )]
    UnsupportedKey { field: &'static str, path: String },
    #[error(
        "the key in {path} is not that of the first certificate in {certificate}; write the two files that belong together, the server's own certificate first"
    )]
    Mismatch { field: &'static str, path: String, certificate: String },
    #[error("no certificate can be made for these hosts: {source}; write host names and IP addresses")]
    SelfSigned { field: &'static str, source: rcgen::Error },
    #[error("this system trusts no CA; name a file with CAs in caFile, or in the variable SSL_CERT_FILE")]
    NoSystemCas,
    #[error("it says not which certificate to serve; write certificateFile and keyFile, or selfSigned")]
    NoSource,
    #[error("TLS cannot be set up: {0}; this is a fault of the sidecar: report it")]
    Setup(#[from] rustls::Error),
}

impl TlsError {
    /// The field of the settings that is about what is wrong, below `tls`; empty for all of it.
    pub fn field(&self) -> &'static str {
        match self {
            Self::Unreadable { field, .. }
            | Self::TooLarge { field, .. }
            | Self::NoCertificate { field, .. }
            | Self::BadCertificate { field, .. }
            | Self::NoKey { field, .. }
            | Self::KeyEncrypted { field, .. }
            | Self::KeyEncryption { field, .. }
            | Self::WrongPassword { field, .. }
            | Self::UnsupportedKey { field, .. }
            | Self::Mismatch { field, .. }
            | Self::SelfSigned { field, .. } => field,
            Self::NoSystemCas => "caFile",
            Self::NoSource | Self::Setup(_) => "",
        }
    }
}
