//! A certificate that the sidecar makes for itself, kept in memory alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::config::SelfSigned;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair as Key, KeyUsagePurpose};
use rustls::{
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    sign::CertifiedKey,
};

use super::{PROVIDER, TlsError, material::KeyPair};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Longer than any process lives: it is made anew at each start.
const VALID: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// A new key and its certificate, and the certificate as PEM.
pub(super) fn make(settings: &SelfSigned) -> Result<(KeyPair, String), TlsError> {
    let failed = |source| TlsError::SelfSigned { field: "selfSigned.hosts", source };
    let now = SystemTime::now();
    let hosts: Vec<String> = settings.hosts.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(hosts.clone()).map_err(failed)?;
    // Clocks of clients may be behind.
    params.not_before = (now - DAY).into();
    params.not_after = (now + VALID).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    if let Some(first) = hosts.into_iter().next() {
        params.distinguished_name.push(DnType::CommonName, first);
    }
    let key = Key::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    let pem = certificate.pem();
    let key: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let certified = CertifiedKey::from_der(vec![certificate.der().clone()], key, &PROVIDER)?;
    let expires = (now + VALID).duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    Ok((KeyPair { certified, expires: i64::try_from(expires).unwrap_or(i64::MAX) }, pem))
}
