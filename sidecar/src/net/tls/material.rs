//! Files -> bytes -> certificates, keys and CAs. All files of one setting are read together and then parsed together.

use std::hash::{DefaultHasher, Hash, Hasher};

use crds::config::KeyPairFiles;
use pkcs8::EncryptedPrivateKeyInfoRef;
use rustls::{
    Error, InconsistentKeys, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::{parse_x509_certificate, pem::Pem};

use super::{PROVIDER, TlsError};
use crate::followed::{self, Unread};

/// A system's bundle of CAs has about 250 KiB.
const MAX_FILE: u64 = 1 << 20;

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
/// How OpenSSL marked encrypted keys before PKCS #8: its keys are made by MD5 in one round.
const OLD_ENCRYPTION: &[u8] = b"Proc-Type: 4,ENCRYPTED";

/// Which files there are, and under which field of the settings each is named.
#[derive(Debug, Clone, Default)]
pub(super) struct Paths {
    pub(super) pair: Option<PairPaths>,
    pub(super) ca: Option<Named>,
}

#[derive(Debug, Clone)]
pub(super) struct PairPaths {
    pub(super) certificate: Named,
    key: Named,
    password: Option<Named>,
}

/// A path, and the field that it stands in.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) path: String,
    field: &'static str,
}

impl Named {
    pub(super) fn new(field: &'static str, path: &str) -> Self {
        Self { path: path.to_owned(), field }
    }
}

impl PairPaths {
    /// The fields stand directly in the settings.
    pub(super) fn direct(files: &KeyPairFiles) -> Self {
        Self::new(files, ["certificateFile", "keyFile", "keyPasswordFile"])
    }

    pub(super) fn of_client(files: &KeyPairFiles) -> Self {
        let fields = [
            "clientCertificate.certificateFile",
            "clientCertificate.keyFile",
            "clientCertificate.keyPasswordFile",
        ];
        Self::new(files, fields)
    }

    fn new(files: &KeyPairFiles, [certificate, key, password]: [&'static str; 3]) -> Self {
        Self {
            certificate: Named::new(certificate, &files.certificate_file),
            key: Named::new(key, &files.key_file),
            password: files.key_password_file.as_deref().map(|path| Named::new(password, path)),
        }
    }
}

/// The content of the files at one moment.
pub(super) struct Contents {
    pair: Option<PairBytes>,
    ca: Option<File>,
}

#[derive(Hash)]
struct PairBytes {
    certificate: File,
    key: File,
    password: Option<File>,
}

#[derive(Hash)]
struct File {
    path: String,
    field: &'static str,
    bytes: Vec<u8>,
}

/// A certificate that belongs to its key.
pub(super) struct KeyPair {
    pub(super) certified: CertifiedKey,
    /// When the first certificate of the chain expires, in seconds since 1970.
    pub(super) expires: i64,
}

impl Contents {
    pub(super) fn read(paths: &Paths) -> Result<Self, TlsError> {
        let pair = match &paths.pair {
            None => None,
            Some(pair) => Some(PairBytes {
                certificate: File::read(&pair.certificate)?,
                key: File::read(&pair.key)?,
                password: pair.password.as_ref().map(File::read).transpose()?,
            }),
        };
        Ok(Self { pair, ca: paths.ca.as_ref().map(File::read).transpose()? })
    }

    /// Contents of one fingerprint are the same; it is never kept longer than the process.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.pair, &self.ca).hash(&mut hasher);
        hasher.finish()
    }

    /// The certificate with its key, where the settings name one.
    pub(super) fn key_pair(&self) -> Result<Option<KeyPair>, TlsError> {
        self.pair.as_ref().map(PairBytes::parse).transpose()
    }

    /// The CAs, where the settings name some.
    pub(super) fn roots(&self) -> Result<Option<RootCertStore>, TlsError> {
        let Some(file) = &self.ca else { return Ok(None) };
        let mut roots = RootCertStore::empty();
        for (index, certificate) in file.certificates()?.into_iter().enumerate() {
            roots.add(certificate).map_err(|_| TlsError::BadCertificate {
                field: file.field,
                path: file.path.clone(),
                number: index + 1,
            })?;
        }
        Ok(Some(roots))
    }
}

impl File {
    /// Follows links as they are now: those of a Secret's volume lead to one version of all its keys.
    fn read(named: &Named) -> Result<Self, TlsError> {
        let Named { path, field } = named.clone();
        match followed::read(&path, MAX_FILE) {
            Ok(bytes) => Ok(Self { path, field, bytes }),
            Err(Unread::Failed { path, source }) => Err(TlsError::Unreadable { field, path, source }),
            Err(Unread::TooLarge { path, most }) => Err(TlsError::TooLarge { field, path, limit: most }),
        }
    }

    /// All certificates, at least one.
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let mut certificates = Vec::new();
        for (index, certificate) in CertificateDer::pem_slice_iter(&self.bytes).enumerate() {
            let bad =
                || TlsError::BadCertificate { field: self.field, path: self.path.clone(), number: index + 1 };
            certificates.push(certificate.map_err(|_| bad())?);
        }
        if certificates.is_empty() {
            return Err(TlsError::NoCertificate { field: self.field, path: self.path.clone() });
        }
        Ok(certificates)
    }
}

impl PairBytes {
    fn parse(&self) -> Result<KeyPair, TlsError> {
        let chain = self.certificate.certificates()?;
        let mut expires = i64::MAX;
        for (index, certificate) in chain.iter().enumerate() {
            let (_, certificate) =
                parse_x509_certificate(certificate).map_err(|_| TlsError::BadCertificate {
                    field: self.certificate.field,
                    path: self.certificate.path.clone(),
                    number: index + 1,
                })?;
            expires = expires.min(certificate.validity().not_after.timestamp());
        }
        let certified = CertifiedKey::from_der(chain, self.private_key()?, &PROVIDER);
        let certified = certified.map_err(|error| self.key_error(&error))?;
        Ok(KeyPair { certified, expires })
    }

    fn private_key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        let (field, path) = (self.key.field, self.key.path.clone());
        if let Some(encrypted) = encrypted_key(&self.key.bytes) {
            let Some(password) = &self.password else { return Err(TlsError::KeyEncrypted { field, path }) };
            return decrypt(&encrypted, &password.bytes).ok_or(TlsError::WrongPassword { field, path });
        }
        if self.key.bytes.windows(OLD_ENCRYPTION.len()).any(|window| window == OLD_ENCRYPTION) {
            return Err(TlsError::KeyEncryption { field, path });
        }
        PrivateKeyDer::from_pem_slice(&self.key.bytes).map_err(|_| TlsError::NoKey { field, path })
    }

    fn key_error(&self, error: &Error) -> TlsError {
        let (field, path) = (self.key.field, self.key.path.clone());
        match error {
            Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                TlsError::Mismatch { field, path, certificate: self.certificate.path.clone() }
            }
            _ => TlsError::UnsupportedKey { field, path },
        }
    }
}

/// The first encrypted PKCS #8 key of a PEM file.
fn encrypted_key(pem: &[u8]) -> Option<Vec<u8>> {
    Pem::iter_from_buffer(pem)
        .filter_map(Result::ok)
        .find(|part| part.label == ENCRYPTED)
        .map(|part| part.contents)
}

fn decrypt(encrypted: &[u8], password: &[u8]) -> Option<PrivateKeyDer<'static>> {
    let password = password.trim_ascii_end();
    let document = EncryptedPrivateKeyInfoRef::try_from(encrypted).ok()?.decrypt(password).ok()?;
    Some(PrivatePkcs8KeyDer::from(document.as_bytes().to_vec()).into())
}
