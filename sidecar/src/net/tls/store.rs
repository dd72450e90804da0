//! All TLS settings in use: each loaded once however many listeners and sites name it, its files looked at each second,
//! and shown in metrics.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crds::{
    config::{BackendTls, ListenerTls},
    metrics::Metric,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};

use super::{Beginning, Client, Server, TlsError};
use crate::followed;

const FILE: &[&str] = &["file"];

const EXPIRY: Metric = Metric {
    name: "sidecar_tls_certificate_expiry_timestamp_seconds",
    kind: MetricType::Gauge,
    labels: FILE,
    help: "When the certificate in the file expires, or the first one of its chain, in seconds since 1970",
    look: "Always: an alert a week before gives time to find out why nobody renewed it",
};

const RELOAD_FAILURES: Metric = Metric {
    name: "sidecar_tls_reload_failures",
    kind: MetricType::Counter,
    labels: FILE,
    help: "Times that a replaced file could not be used, so that the one before is kept",
    look: "When it grows: the sidecar's log says what is wrong with the file",
};

const HANDSHAKE_FAILURES: Metric = Metric {
    name: "sidecar_tls_handshake_failures",
    kind: MetricType::Counter,
    labels: FILE,
    help: "Handshakes of clients that came to nothing, by the file of the listener's certificate",
    look: "When clients cannot connect: they do not trust the certificate, or show none that the listener trusts",
};

/// What TLS shows in metrics.
pub(crate) const FAMILIES: [&Metric; 3] = [&EXPIRY, &RELOAD_FAILURES, &HANDSHAKE_FAILURES];

/// Servers and clients by their settings. Clones share.
#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    /// By the protocols that they speak, too.
    servers: HashMap<(ListenerTls, Vec<Vec<u8>>), Weak<Server>>,
    clients: HashMap<(BackendTls, Beginning), Weak<Client>>,
}

impl Store {
    pub fn register(registry: &mut Registry) -> Self {
        let store = Self::default();
        registry.register_collector(Box::new(store.clone()));
        store
    }

    /// The server of these settings; see [`Server::load`].
    pub fn server(&self, settings: &ListenerTls, alpn: &[&[u8]]) -> Result<Arc<Server>, TlsError> {
        let mut held = self.held();
        let key = (settings.clone(), alpn.iter().map(|name| name.to_vec()).collect());
        if let Some(server) = held.servers.get(&key).and_then(Weak::upgrade) {
            return Ok(server);
        }
        let server = Arc::new(Server::load(settings, alpn)?);
        held.servers.retain(|_, server| server.strong_count() > 0);
        held.servers.insert(key, Arc::downgrade(&server));
        Ok(server)
    }

    /// The client of these settings; see [`Client::load`].
    pub fn client(&self, settings: &BackendTls) -> Result<Arc<Client>, TlsError> {
        self.client_as(settings, Beginning::AtOnce)
    }

    /// The same, for backends with which TLS begins so.
    pub fn client_as(&self, settings: &BackendTls, beginning: Beginning) -> Result<Arc<Client>, TlsError> {
        let mut held = self.held();
        let key = (settings.clone(), beginning);
        if let Some(client) = held.clients.get(&key).and_then(Weak::upgrade) {
            return Ok(client);
        }
        let client = Arc::new(Client::load_as(settings, beginning)?);
        held.clients.retain(|_, client| client.strong_count() > 0);
        held.clients.insert(key, Arc::downgrade(&client));
        Ok(client)
    }

    /// Takes over files as they are replaced, until it is dropped.
    pub async fn follow(self) {
        followed::follow(|| self.refresh()).await;
    }

    /// Looks at all files now.
    pub fn refresh(&self) {
        let (servers, clients) = self.living();
        servers.iter().for_each(|server| server.config().refresh());
        clients.iter().for_each(|client| client.config().refresh());
    }

    fn held(&self) -> std::sync::MutexGuard<'_, Held> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn living(&self) -> (Vec<Arc<Server>>, Vec<Arc<Client>>) {
        let held = self.held();
        (
            held.servers.values().filter_map(Weak::upgrade).collect(),
            held.clients.values().filter_map(Weak::upgrade).collect(),
        )
    }
}

/// What one file shows in metrics.
struct Shown {
    file: String,
    expires: Option<i64>,
    failures: u64,
    failed_handshakes: Option<u64>,
}

impl Store {
    fn shown(&self) -> Vec<Shown> {
        let (servers, clients) = self.living();
        let servers = servers.iter().map(|server| {
            let file =
                if server.self_signed_pem().is_some() { "self-signed" } else { server.config().file() };
            Shown {
                file: file.to_owned(),
                expires: server.config().expires(),
                failures: server.config().failures(),
                failed_handshakes: Some(server.failed()),
            }
        });
        let clients = clients.iter().map(|client| Shown {
            file: client.config().file().to_owned(),
            expires: client.config().expires(),
            failures: client.config().failures(),
            failed_handshakes: None,
        });
        let mut all: Vec<Shown> = Vec::new();
        // Settings that differ elsewhere may name the same file: one series each.
        for next in servers.chain(clients).filter(|shown| !shown.file.is_empty()) {
            match all.iter_mut().find(|shown| shown.file == next.file) {
                Some(shown) => shown.add(next),
                None => all.push(next),
            }
        }
        all.sort_by(|a, b| a.file.cmp(&b.file));
        all
    }
}

impl Shown {
    fn labels(&self) -> [(&'static str, &str); 1] {
        [("file", &self.file)]
    }

    fn add(&mut self, other: Self) {
        self.expires = self.expires.into_iter().chain(other.expires).min();
        self.failures += other.failures;
        self.failed_handshakes = match (self.failed_handshakes, other.failed_handshakes) {
            (Some(a), Some(b)) => Some(a + b),
            (a, b) => a.or(b),
        };
    }
}

impl Collector for Store {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.shown();
        let mut family = EXPIRY.encode(&mut encoder)?;
        for shown in &all {
            let Some(expires) = shown.expires else { continue };
            family.encode_family(&shown.labels())?.encode_gauge(&expires)?;
        }
        let mut family = RELOAD_FAILURES.encode(&mut encoder)?;
        for shown in &all {
            let labels = shown.labels();
            let mut series = family.encode_family(&labels)?;
            series.encode_counter::<NoLabelSet, _, u64>(&shown.failures, None)?;
        }
        let mut family = HANDSHAKE_FAILURES.encode(&mut encoder)?;
        for shown in &all {
            let Some(failed) = shown.failed_handshakes else { continue };
            let labels = shown.labels();
            let mut series = family.encode_family(&labels)?;
            series.encode_counter::<NoLabelSet, _, u64>(&failed, None)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").finish_non_exhaustive()
    }
}
