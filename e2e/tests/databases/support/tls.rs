//! Certificates for servers of one test.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

/// A CA of one test's.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub(crate) fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        // Another name than that of what it issues, or clients would take that for signed by itself.
        params.distinguished_name.push(DnType::CommonName, "tests");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("ca.pem"), params.self_signed(&key)?.pem())?;
        Ok(Self { issuer: Issuer::new(params, key), directory })
    }

    /// A file with its certificate, to be trusted.
    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// Writes `server.crt` and `server.key` into a folder, for these names and IP addresses.
    pub(crate) fn issue(&self, folder: &Path, names: &[&str]) -> Result<()> {
        let params = CertificateParams::new(names.iter().map(|&name| name.to_owned()).collect::<Vec<_>>())?;
        let key = KeyPair::generate()?;
        fs::write(folder.join("server.crt"), params.signed_by(&key, &self.issuer)?.pem())?;
        fs::write(folder.join("server.key"), key.serialize_pem())?;
        Ok(())
    }
}
