//! A listener's side of TLS.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crds::config::{ClientCaMode, ListenerCertificate, ListenerTls};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring::Ticketer,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::SingleCertAndKey,
};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::{
    PROVIDER, TlsError,
    current::{Built, Current},
    explain::explain,
    material::{KeyPair, Named, PairPaths, Paths},
    self_signed,
    version::versions,
};
use crate::net::{Socket, Stream};

/// A client that has not finished its handshake after this time is cut off.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Answers handshakes for the listeners of one setting.
pub struct Server {
    config: Current<ServerConfig>,
    /// Of a self-signed certificate.
    pem: Option<String>,
    failed: AtomicU64,
}

impl Server {
    /// Reads the files. `alpn` are the protocols that the listener speaks, the best one first.
    pub fn load(settings: &ListenerTls, alpn: &[&[u8]]) -> Result<Self, TlsError> {
        let ca = settings.client_ca.as_ref().map(|ca| Named::new("clientCa.file", &ca.file));
        let mode = settings.client_ca.as_ref().map(|ca| ca.mode).unwrap_or_default();
        let spoken = Spoken {
            versions: versions(&(settings.min_version..=settings.max_version)),
            alpn: alpn.iter().map(|name| name.to_vec()).collect(),
        };
        let (config, pem) = match settings.certificate().ok_or(TlsError::NoSource)? {
            ListenerCertificate::Files(files) => {
                let paths = Paths { pair: Some(PairPaths::direct(&files)), ca };
                let config = Current::load(paths, move |contents| {
                    let pair = contents.key_pair()?.ok_or(TlsError::NoSource)?;
                    config(pair, contents.roots()?, mode, &spoken)
                })?;
                (config, None)
            }
            ListenerCertificate::SelfSigned(settings) => {
                let (pair, pem) = self_signed::make(&settings)?;
                let (certified, expires) = (Arc::new(pair.certified), pair.expires);
                let config = Current::load(Paths { pair: None, ca }, move |contents| {
                    let pair = KeyPair { certified: certified.as_ref().clone(), expires };
                    config(pair, contents.roots()?, mode, &spoken)
                })?;
                (config, Some(pem))
            }
        };
        Ok(Self { config, pem, failed: AtomicU64::new(0) })
    }

    /// Answers a client's handshake, which must not take too long. To be run where the connection is served.
    pub async fn accept(&self, socket: Socket) -> io::Result<Stream> {
        self.accept_after(&[], socket).await
    }

    /// The same for a client whose first bytes, fewer than a record has, were read already.
    pub async fn accept_after(&self, mut begun: &[u8], socket: Socket) -> io::Result<Stream> {
        let handshake = TlsAcceptor::from(self.config.value()).accept_with(socket, |connection| {
            // To read nothing is to read the end.
            if !begun.is_empty() {
                // Reading from memory does not fail, and there is room for more than this.
                let _ = connection.read_tls(&mut begun);
            }
        });
        let accepted = match timeout(HANDSHAKE, handshake).await {
            Ok(accepted) => accepted.map(Stream::from).map_err(explain),
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        accepted.inspect_err(|_| {
            self.failed.fetch_add(1, Ordering::Relaxed);
        })
    }

    /// The certificate as PEM where it is self-signed, so that clients can be told whom to trust.
    pub fn self_signed_pem(&self) -> Option<&str> {
        self.pem.as_deref()
    }

    pub(super) fn config(&self) -> &Current<ServerConfig> {
        &self.config
    }

    /// Handshakes that came to nothing.
    pub(super) fn failed(&self) -> u64 {
        self.failed.load(Ordering::Relaxed)
    }
}

/// What is spoken at a listener.
struct Spoken {
    versions: Vec<&'static SupportedProtocolVersion>,
    /// The best one first.
    alpn: Vec<Vec<u8>>,
}

fn config(
    pair: KeyPair,
    clients: Option<RootCertStore>,
    mode: ClientCaMode,
    spoken: &Spoken,
) -> Result<Built<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&PROVIDER))
        .with_protocol_versions(&spoken.versions)?;
    let mut config = match clients {
        Some(roots) => builder.with_client_cert_verifier(verifier(roots, mode)?),
        None => builder.with_no_client_auth(),
    }
    .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified)));
    config.alpn_protocols = spoken.alpn.clone();
    // Sessions are resumed from tickets that clients keep: nothing is stored, and threads share no lock.
    config.ticketer = Ticketer::new()?;
    Ok(Built { value: config, expires: Some(pair.expires) })
}

fn verifier(roots: RootCertStore, mode: ClientCaMode) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&PROVIDER));
    let builder = match mode {
        ClientCaMode::Required => builder,
        ClientCaMode::Optional => builder.allow_unauthenticated(),
    };
    builder.build().map_err(|error| rustls::Error::General(error.to_string()).into())
}
