//! A server that begins as PostgreSQL does, and then echoes; a client's side of the same; and certificates for both.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy, split},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, client::TlsStream};
use tokio_util::task::AbortOnDropHandle;

use crate::support::in_time;

pub(super) const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];
pub(super) const GSS_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30];
pub(super) const CANCEL: [u8; 8] = [0, 0, 0, 16, 0x04, 0xd2, 0x16, 0x2e];
pub(super) const START: &[u8] = b"\0\0\0\x12\0\x03\0\0user\0app\0\0";

/// The name of the certificate.
pub(super) const NAME: &str = "db.example.com";

pub(super) trait Talk: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Talk for T {}

/// A process, and its secret.
pub(super) type Key = [u8; 8];

/// A certificate that is its own CA, in files.
pub(super) struct Files {
    directory: tempfile::TempDir,
    certificate: String,
    key: String,
}

impl Files {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            certificate: made.cert.pem(),
            key: made.signing_key.serialize_pem(),
        };
        std::fs::write(files.path("tls.crt"), &files.certificate).unwrap();
        std::fs::write(files.path("tls.key"), &files.key).unwrap();
        files
    }

    pub(super) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).to_str().unwrap().to_owned()
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()];
        let config = ServerConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, PrivateKeyDer::from_pem_slice(self.key.as_bytes()).unwrap());
        TlsAcceptor::from(Arc::new(config.unwrap()))
    }

    /// A client's handshake, as with sslmode=verify-full.
    pub(super) async fn secure(&self, stream: TcpStream, alpn: &[&[u8]]) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(default_provider().into())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(NAME).unwrap();
        in_time("a handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

pub(super) struct Postgres {
    pub(super) address: SocketAddr,
    cancelled: Arc<Mutex<Vec<Key>>>,
    _accepts: AbortOnDropHandle<()>,
}

impl Postgres {
    /// All secrets of one server are of its own `letter`; its processes are numbered as those of every other. With `tls` it
    /// takes no connection without.
    pub(super) async fn start(letter: u8, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cancelled = Arc::<Mutex<Vec<Key>>>::default();
        let shared = Arc::clone(&cancelled);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (cancelled, tls) = (Arc::clone(&shared), tls.clone());
                connections.spawn(async move { serve(stream, letter, tls, &cancelled).await });
            }
        });
        Self { address, cancelled, _accepts: AbortOnDropHandle::new(task) }
    }

    /// The connections whose queries it was asked to cancel.
    pub(super) fn cancelled(&self) -> Vec<Key> {
        self.cancelled.lock().unwrap().clone()
    }
}

async fn serve(
    mut stream: TcpStream,
    letter: u8,
    tls: Option<TlsAcceptor>,
    cancelled: &Mutex<Vec<Key>>,
) -> io::Result<()> {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await?;
    match (head, tls) {
        (SSL_REQUEST, Some(tls)) => {
            stream.write_all(b"S").await?;
            let mut stream = tls.accept(stream).await?;
            stream.read_exact(&mut head).await?;
            talk(stream, head, letter, cancelled).await
        }
        (SSL_REQUEST, None) => {
            stream.write_all(b"N").await?;
            stream.read_exact(&mut head).await?;
            talk(stream, head, letter, cancelled).await
        }
        (_, Some(_)) => Ok(()),
        (_, None) => talk(stream, head, letter, cancelled).await,
    }
}

async fn talk(
    mut stream: impl Talk,
    head: [u8; 8],
    letter: u8,
    cancelled: &Mutex<Vec<Key>>,
) -> io::Result<()> {
    static PROCESSES: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);
    if head == CANCEL {
        let mut key = Key::default();
        stream.read_exact(&mut key).await?;
        cancelled.lock().unwrap().push(key);
        return Ok(());
    }
    stream.read_exact(&mut vec![0; START.len() - head.len()]).await?;
    assert_eq!(head, START[..8]);
    let process = PROCESSES.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let key = [0, 0, 0, 7, letter, letter, letter, process];
    stream.write_all(&welcome(key)).await?;
    stream.flush().await?;
    let (mut read, mut write) = split(stream);
    copy(&mut read, &mut write).await?;
    write.shutdown().await
}

/// What a server says to who may come in.
pub(super) fn welcome(key: Key) -> Vec<u8> {
    let words = [
        &b"R\0\0\0\x08\0\0\0\0"[..],
        b"S\0\0\0\x11TimeZone\0UTC\0",
        &[&b"K\0\0\0\x0c"[..], &key].concat(),
        b"Z\0\0\0\x05I",
    ];
    words.concat()
}

/// Begins a session as a client does, and gives the key that the server gave.
pub(super) async fn begin(stream: &mut impl Talk) -> io::Result<Key> {
    stream.write_all(START).await?;
    stream.flush().await?;
    loop {
        let kind = in_time("a message", stream.read_u8()).await?;
        let length = in_time("its length", stream.read_u32()).await?;
        let mut body = vec![0; length as usize - 4];
        in_time("its body", stream.read_exact(&mut body)).await?;
        match kind {
            b'K' => {
                let key = body.try_into().unwrap();
                in_time("that it is ready", stream.read_exact(&mut [0; 6])).await?;
                return Ok(key);
            }
            b'E' => return Err(io::Error::other(String::from_utf8_lossy(&body).into_owned())),
            _ => {}
        }
    }
}

/// Asks for TLS, and gives the answer.
pub(super) async fn ask(stream: &mut TcpStream, request: [u8; 8]) -> u8 {
    stream.write_all(&request).await.unwrap();
    in_time("an answer", stream.read_u8()).await.unwrap()
}

/// Bytes there and back.
pub(super) async fn echoes(stream: &mut impl Talk, bytes: &[u8]) -> bool {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
    let mut back = vec![0; bytes.len()];
    in_time("an echo", stream.read_exact(&mut back)).await.unwrap();
    back == bytes
}

/// Sends a request to cancel, as clients do on a connection of its own, and waits for its end.
pub(super) async fn cancel(stream: &mut impl Talk, key: Key) {
    stream.write_all(&[CANCEL, key].concat()).await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let _ = in_time("the end", stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty(), "nothing is said about a request to cancel");
}
