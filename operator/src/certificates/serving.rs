//! The certificate that this replica serves: from the Secret or from files, replaced while serving.
//!
//! What cannot be served is reported and changes nothing: the certificate before stays.

use std::{path::Path, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use crds::metrics::Metric;
use k8s_openapi::api::core::v1::Secret;
use prometheus_client::{
    metrics::{MetricType, gauge::Gauge},
    registry::Registry,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::ResolvesServerCertUsingSni,
};
use tokio::sync::watch;
use tracing::{info, warn};
use x509_parser::parse_x509_certificate;

use super::material::{LEAF, LEAF_KEY};
use crate::webhook::server_config;

/// How often files are read again. Mounted Secrets are swapped by symbolic links, which no file watch follows well.
const REREAD: Duration = Duration::from_secs(5);

pub(crate) const EXPIRY: Metric = Metric {
    name: "sidecar_operator_serving_certificate_expiry_timestamp_seconds",
    kind: MetricType::Gauge,
    labels: &[],
    help: "When the certificate that this replica serves expires, in seconds since the epoch",
    look: "Always: an alert when less than a quarter of its validity is left; it is renewed long before",
};

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServingError {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{name} cannot be read")]
    File { name: &'static str, source: std::io::Error },
    #[error("{0} is not in PEM")]
    NotPem(&'static str),
    #[error("TLS cannot be set up with this certificate")]
    Tls(#[from] rustls::Error),
}

/// What is served. Cheap to share; one task writes it.
pub struct Serving {
    tls: Arc<ArcSwap<ServerConfig>>,
    /// The leaf that is served, once there is one.
    leaf: watch::Sender<Option<CertificateDer<'static>>>,
    /// Seconds since the epoch; 0 before the first.
    expiry: Gauge,
}

impl Serving {
    /// Serves nothing yet: handshakes fail until a certificate is loaded.
    pub fn new() -> Result<Self, ServingError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let none = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ResolvesServerCertUsingSni::new()));
        Ok(Self {
            tls: Arc::new(ArcSwap::from_pointee(none)),
            leaf: watch::Sender::new(None),
            expiry: Gauge::default(),
        })
    }

    /// For the listener: each new connection takes the newest.
    pub fn tls(&self) -> Arc<ArcSwap<ServerConfig>> {
        Arc::clone(&self.tls)
    }

    /// The leaf that is served.
    pub fn leaf(&self) -> watch::Receiver<Option<CertificateDer<'static>>> {
        self.leaf.subscribe()
    }

    /// For alerts: renewal has failed for long when this comes near.
    pub fn register(&self, registry: &mut Registry) {
        EXPIRY.register(registry, self.expiry.clone());
    }

    /// Serves this certificate from now on.
    pub fn load(&self, certificate: &[u8], key: &[u8]) -> Result<(), ServingError> {
        let chain = CertificateDer::pem_slice_iter(certificate)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| ServingError::NotPem(LEAF))?;
        let leaf = chain.first().cloned().ok_or(ServingError::NotPem(LEAF))?;
        if self.leaf.borrow().as_ref() == Some(&leaf) {
            return Ok(());
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| ServingError::NotPem(LEAF_KEY))?;
        let expiry =
            parse_x509_certificate(&leaf).map_or(0, |(_, leaf)| leaf.validity().not_after.timestamp());
        self.tls.store(Arc::new(server_config(chain, key)?));
        self.expiry.set(expiry);
        self.leaf.send_replace(Some(leaf));
        info!("serving a new certificate");
        Ok(())
    }
}

/// Serves what the Secret says, whenever it says something new.
pub(super) fn load_from(serving: &Serving, secret: &Secret) {
    if let Err(error) = load_secret(serving, secret) {
        warn!(
            error = &error as &dyn std::error::Error,
            "the Secret's certificate is not served, the one before stays"
        );
    }
}

fn load_secret(serving: &Serving, secret: &Secret) -> Result<(), ServingError> {
    let value = |name: &'static str| {
        let value = secret.data.as_ref().and_then(|data| data.get(name));
        value.map(|value| value.0.as_slice()).ok_or(ServingError::Missing(name))
    };
    serving.load(value(LEAF)?, value(LEAF_KEY)?)
}

/// Serves what the files `tls.crt` and `tls.key` say, for as long as it runs.
pub async fn follow_directory(directory: &Path, serving: &Serving) {
    loop {
        if let Err(error) = load_directory(directory, serving).await {
            warn!(
                directory = %directory.display(), error = &error as &dyn std::error::Error,
                "not served, the certificate before stays"
            );
        }
        tokio::time::sleep(REREAD).await;
    }
}

/// The two files are replaced together, but may be read in between: then the key does not fit and the next time does.
async fn load_directory(directory: &Path, serving: &Serving) -> Result<(), ServingError> {
    let read = async |name: &'static str| {
        tokio::fs::read(directory.join(name)).await.map_err(|source| ServingError::File { name, source })
    };
    serving.load(&read(LEAF).await?, &read(LEAF_KEY).await?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::{Material, Validities};

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let validities = Validities { authority: 3_000, leaf: 300 };
        let data =
            Material::create(&["webhook.ns.svc".to_owned()], validities, 1_790_000_000).unwrap().to_data();
        (data[LEAF].0.clone(), data[LEAF_KEY].0.clone())
    }

    #[tokio::test(start_paused = true)]
    async fn files_are_read_again_and_a_broken_one_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let write = |(certificate, key): &(Vec<u8>, Vec<u8>)| {
            std::fs::write(directory.path().join(LEAF), certificate).unwrap();
            std::fs::write(directory.path().join(LEAF_KEY), key).unwrap();
        };
        let serving = Arc::new(Serving::new().unwrap());
        let mut leaf = serving.leaf();
        let (first, second) = (pair(), pair());
        write(&first);
        let (path, served) = (directory.path().to_owned(), Arc::clone(&serving));
        let task = tokio::spawn(async move { follow_directory(&path, &served).await });
        leaf.changed().await.unwrap();
        let before = leaf.borrow_and_update().clone();
        assert_eq!(serving.expiry.get(), 1_790_000_300);

        write(&(second.0.clone(), b"broken".to_vec()));
        assert!(load_directory(directory.path(), &serving).await.is_err());
        assert_eq!(*leaf.borrow_and_update(), before);
        write(&(second.0.clone(), first.1.clone()));
        assert!(load_directory(directory.path(), &serving).await.is_err(), "the key of another certificate");
        write(&second);
        leaf.changed().await.unwrap();
        assert_ne!(*leaf.borrow(), before);
        task.abort();
    }
}
