//! A site's side of TLS.

use std::{
    fmt,
    hash::{Hash, Hasher},
    io,
    net::IpAddr,
    sync::Arc,
};

use crds::{
    config::{BackendTls, ServerCheck, TcpListener, TcpProtocol},
    units::Address,
};
use rustls::{
    ClientConfig, SupportedProtocolVersion,
    client::{ClientSessionMemoryCache, ClientSessionStore, Resumption},
    pki_types::ServerName,
    sign::SingleCertAndKey,
};
use tokio_rustls::TlsConnector;

use super::{
    PROVIDER, TlsError,
    current::{Built, Current},
    explain::explain,
    material::{Contents, Named, PairPaths, Paths},
    trust::{self, Anyone},
    version::versions,
};
use crate::net::{Socket, Stream, postgres};

/// Sessions kept for one backend, under its one name.
const SESSIONS: usize = 1;

/// How TLS begins on a connection to a backend, beside what the settings say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Beginning {
    /// With the first byte.
    #[default]
    AtOnce,
    /// With the first byte, of a server that wants to hear then that it is PostgreSQL.
    AsPostgres,
    /// When the server has agreed to it, in words of PostgreSQL.
    WhenPostgresAgrees,
}

impl Beginning {
    /// With the backends of a TCP listener.
    pub fn of(listener: &TcpListener) -> Self {
        let start_tls = listener.backend_tls.as_ref().and_then(|tls| tls.start_tls);
        match (start_tls, listener.spoken()) {
            (Some(TcpProtocol::Postgres), _) => Self::WhenPostgresAgrees,
            (None, Some(TcpProtocol::Postgres)) => Self::AsPostgres,
            (None, None) => Self::AtOnce,
        }
    }

    /// With the backends of a check that has TLS of its own: PostgreSQL servers of any version take the question for it.
    pub fn of_check(check: &ServerCheck) -> Self {
        if check.postgres.is_some() { Self::WhenPostgresAgrees } else { Self::AtOnce }
    }
}

/// Opens TLS connections to the backends of one setting. Two of the same settings are equal.
pub struct Client {
    settings: BackendTls,
    beginning: Beginning,
    config: Current<ClientConfig>,
}

/// How one backend is met: its name, and what it gave to resume sessions with.
pub struct Peer {
    client: Arc<Client>,
    name: Result<ServerName<'static>, String>,
    sessions: Arc<dyn ClientSessionStore>,
}

impl Client {
    /// Reads the files. TLS begins with the first byte.
    pub fn load(settings: &BackendTls) -> Result<Self, TlsError> {
        Self::load_as(settings, Beginning::AtOnce)
    }

    pub fn load_as(settings: &BackendTls, beginning: Beginning) -> Result<Self, TlsError> {
        let paths = Paths {
            pair: settings.client_certificate.as_ref().map(PairPaths::of_client),
            ca: settings.ca_file.as_deref().map(|path| Named::new("caFile", path)),
        };
        let skip_verify = settings.insecure_skip_verify;
        let versions = versions(&(settings.min_version..=settings.max_version));
        let config = Current::load(paths, move |contents| config(contents, skip_verify, &versions))?;
        Ok(Self { settings: settings.clone(), beginning, config })
    }

    pub(super) fn config(&self) -> &Current<ClientConfig> {
        &self.config
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Client").field(&self.settings).field(&self.beginning).finish()
    }
}

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        self.settings == other.settings && self.beginning == other.beginning
    }
}

impl Eq for Client {}

impl Hash for Client {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.settings, self.beginning).hash(state);
    }
}

impl Peer {
    /// `host` is the name that the backend was found by.
    pub fn new(client: Arc<Client>, address: &Address, host: Option<&str>) -> Self {
        let ip = address.ip().map(|address| address.ip());
        let name = match (&client.settings.server_name, host) {
            (Some(name), _) => name.as_str().trim_end_matches('.').to_owned(),
            (None, Some(host)) => host.to_owned(),
            (None, None) => ip.map_or_else(|| "localhost".to_owned(), |ip: IpAddr| ip.to_string()),
        };
        let name = ServerName::try_from(name.clone()).map_err(|_| name);
        Self { client, name, sessions: Arc::new(ClientSessionMemoryCache::new(SESSIONS)) }
    }

    /// Makes the handshake, which takes as long as the backend does: callers set the limit. `foreign`: for another protocol than
    /// the backend's own, which begins TLS as any server does.
    pub(in crate::net) async fn handshake(
        &self,
        mut socket: Socket,
        alpn: &[&[u8]],
        foreign: bool,
    ) -> io::Result<Stream> {
        let name = self.name.clone().map_err(|name| {
            let message = format!("{name:?} is no name that a certificate can have: set tls.serverName");
            io::Error::new(io::ErrorKind::InvalidData, message)
        })?;
        let beginning = if foreign { Beginning::AtOnce } else { self.client.beginning };
        let alpn = match beginning {
            Beginning::AtOnce => alpn,
            Beginning::AsPostgres => postgres::ALPN,
            Beginning::WhenPostgresAgrees => {
                postgres::ask_for_tls(&mut socket).await?;
                &[]
            }
        };
        // Cheap beside a handshake: the parts are shared.
        let mut config = ClientConfig::clone(&self.client.config.value());
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
        config.resumption = Resumption::store(Arc::clone(&self.sessions));
        let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
        connected.map(Stream::from).map_err(explain)
    }
}

fn config(
    contents: &Contents,
    skip_verify: bool,
    versions: &[&'static SupportedProtocolVersion],
) -> Result<Built<ClientConfig>, TlsError> {
    let pair = contents.key_pair()?;
    let expires = pair.as_ref().map(|pair| pair.expires);
    let roots = contents.roots()?;
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(&PROVIDER)).with_protocol_versions(versions)?;
    let builder = if skip_verify {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone))
    } else {
        builder.with_root_certificates(roots.map(Arc::new).map_or_else(trust::system, Ok)?)
    };
    let config = match pair {
        Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair.certified))),
        None => builder.with_no_client_auth(),
    };
    Ok(Built { value: config, expires })
}
