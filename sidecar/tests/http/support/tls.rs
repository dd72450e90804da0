//! Certificates, a Secret's volume, and TLS put in front of plain backends and behind plain clients.

use std::{
    cell::Cell,
    fs, io,
    net::SocketAddr,
    os::unix::fs::symlink,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crds::config::{BackendTls, KeyPairFiles, ListenerTls};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    ClientConfig, HandshakeKind, ProtocolVersion, RootCertStore, ServerConfig, SupportedProtocolVersion,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
pub(crate) use sidecar::net::tls::{Client, Server};
use sidecar::{http::ALPN, net::tls::Store};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use super::{Client as PlainClient, in_time};

/// A CA.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key as PEM.
#[derive(Clone)]
pub(crate) struct Pair {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::named("test CA")
    }

    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for these host names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Pair {
        self.issue_as(names, |_| ())
    }

    pub(crate) fn issue_as(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }
}

impl Pair {
    fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(self.certificate.as_bytes()).map(Result::unwrap).collect()
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap()
    }
}

/// A directory as the kubelet keeps it for a Secret: a new version is made beside the old one, and a symlink is swapped.
pub(crate) struct Volume {
    directory: tempfile::TempDir,
    version: Cell<u32>,
}

impl Volume {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let volume = Self { directory: tempfile::tempdir().unwrap(), version: Cell::new(0) };
        volume.replace(files);
        for (name, _) in files {
            symlink(format!("..data/{name}"), volume.directory.path().join(name)).unwrap();
        }
        volume
    }

    pub(crate) fn of(pair: &Pair, authority: &Authority) -> Self {
        Self::new(&Self::files(pair, authority))
    }

    fn files<'a>(pair: &'a Pair, authority: &'a Authority) -> [(&'static str, &'a str); 3] {
        [("tls.crt", &pair.certificate), ("tls.key", &pair.key), ("ca.crt", &authority.pem)]
    }

    pub(crate) fn rotate(&self, pair: &Pair, authority: &Authority) {
        self.replace(&Self::files(pair, authority));
    }

    pub(crate) fn replace(&self, files: &[(&str, &str)]) {
        let version = self.version.replace(self.version.get() + 1);
        let (root, name) = (self.directory.path(), format!("..version-{version}"));
        fs::create_dir(root.join(&name)).unwrap();
        for (file, content) in files {
            fs::write(root.join(&name).join(file), content).unwrap();
        }
        symlink(&name, root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn listener(&self) -> ListenerTls {
        ListenerTls {
            certificate_file: Some(self.path("tls.crt")),
            key_file: Some(self.path("tls.key")),
            ..ListenerTls::default()
        }
    }

    pub(crate) fn server(&self, store: &Store) -> Arc<Server> {
        store.server(&self.listener(), ALPN).unwrap()
    }

    /// Trusts the CA of the volume, and shows no certificate.
    pub(crate) fn backend(&self) -> BackendTls {
        BackendTls { ca_file: Some(self.path("ca.crt")), ..BackendTls::default() }
    }

    pub(crate) fn key_pair(&self) -> KeyPairFiles {
        KeyPairFiles {
            certificate_file: self.path("tls.crt"),
            key_file: self.path("tls.key"),
            key_password_file: None,
        }
    }
}

/// What a TLS server saw of a connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Seen {
    pub(crate) name: Option<String>,
    pub(crate) resumed: bool,
    pub(crate) with_certificate: bool,
    pub(crate) version: Option<ProtocolVersion>,
}

/// TLS in front of a plain backend.
pub(crate) struct Terminator {
    pub(crate) address: SocketAddr,
    met: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    _task: AbortOnDropHandle<()>,
}

/// How a test's own TLS server is set up: clients of the CA must show a certificate, if there is one.
pub(crate) fn server_config(pair: &Pair, clients: Option<&Authority>) -> ServerConfig {
    server_config_of(rustls::ALL_VERSIONS, pair, clients)
}

/// The same, speaking these versions alone.
pub(crate) fn server_config_of(
    versions: &[&'static SupportedProtocolVersion],
    pair: &Pair,
    clients: Option<&Authority>,
) -> ServerConfig {
    let builder = ServerConfig::builder_with_provider(default_provider().into());
    let builder = builder.with_protocol_versions(versions).unwrap();
    let builder = match clients {
        Some(authority) => builder.with_client_cert_verifier(
            WebPkiClientVerifier::builder_with_provider(
                roots(&authority.pem).into(),
                default_provider().into(),
            )
            .build()
            .unwrap(),
        ),
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(pair.chain(), pair.private_key()).unwrap()
}

fn roots(pem: &str) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()).unwrap();
    roots
}

impl Terminator {
    pub(crate) async fn start(config: ServerConfig, backend: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Vec<Seen>>>::default();
        let config = Arc::new(Mutex::new(Arc::new(config)));
        let (shared, current) = (Arc::clone(&seen), Arc::clone(&config));
        let met = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&met);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                counted.fetch_add(1, Ordering::Relaxed);
                let acceptor = TlsAcceptor::from(Arc::clone(&current.lock().unwrap()));
                let seen = Arc::clone(&shared);
                connections.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else { return };
                    let (_, session) = stream.get_ref();
                    seen.lock().unwrap().push(Seen {
                        name: session.server_name().map(str::to_owned),
                        resumed: session.handshake_kind() == Some(HandshakeKind::Resumed),
                        with_certificate: session.peer_certificates().is_some(),
                        version: session.protocol_version(),
                    });
                    let mut backend = TcpStream::connect(backend).await.unwrap();
                    let _ = copy_bidirectional(&mut stream, &mut backend).await;
                });
            }
        });
        Self { address, met, seen, config, _task: AbortOnDropHandle::new(task) }
    }

    /// Connections so far, those among them that came to nothing.
    pub(crate) fn met(&self) -> usize {
        self.met.load(Ordering::Relaxed)
    }

    /// Serves new connections by this from now on.
    pub(crate) fn set(&self, config: ServerConfig) {
        *self.config.lock().unwrap() = Arc::new(config);
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

/// How a test's own TLS client is set up.
pub(crate) struct Visitor {
    pub(crate) authority: String,
    pub(crate) certificate: Option<Pair>,
    pub(crate) versions: Vec<&'static SupportedProtocolVersion>,
    pub(crate) alpn: Vec<&'static [u8]>,
}

/// A plain client whose bytes go within TLS, and what was agreed on.
pub(crate) struct Secure {
    pub(crate) client: PlainClient,
    pub(crate) version: Option<ProtocolVersion>,
    pub(crate) alpn: Option<Vec<u8>>,
}

impl Visitor {
    /// Trusts this CA, or this very certificate.
    pub(crate) fn trusting(pem: &str) -> Self {
        Self {
            authority: pem.to_owned(),
            certificate: None,
            versions: vec![&rustls::version::TLS12, &rustls::version::TLS13],
            alpn: Vec::new(),
        }
    }

    pub(crate) async fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Secure> {
        let stream = self.handshake(address, name).await?;
        let (_, session) = stream.get_ref();
        let (version, alpn) = (session.protocol_version(), session.alpn_protocol().map(<[u8]>::to_vec));
        let bridge = TcpListener::bind("127.0.0.1:0").await?;
        let near = bridge.local_addr()?;
        tokio::spawn(async move {
            let (mut stream, (mut plain, _)) = (stream, bridge.accept().await.unwrap());
            let _ = copy_bidirectional(&mut plain, &mut stream).await;
        });
        Ok(Secure { client: PlainClient::connect(near).await, version, alpn })
    }

    async fn handshake(&self, address: SocketAddr, name: &str) -> io::Result<TlsStream<TcpStream>> {
        let builder = ClientConfig::builder_with_provider(default_provider().into())
            .with_protocol_versions(&self.versions)
            .unwrap()
            .with_root_certificates(roots(&self.authority));
        let mut config = match &self.certificate {
            Some(pair) => builder.with_client_auth_cert(pair.chain(), pair.private_key()).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = self.alpn.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = TcpStream::connect(address).await?;
        in_time("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

/// A certificate that ended an hour ago.
pub(crate) fn expired(params: &mut CertificateParams) {
    let now = std::time::SystemTime::now();
    params.not_before = (now - Duration::from_secs(2 * 3_600)).into();
    params.not_after = (now - Duration::from_secs(3_600)).into();
}
