//! A sidecar with one listener, scripted backends, and a client of bare bytes. All waits have a deadline.

mod backend;
mod client;
pub(crate) mod h2;
pub(crate) mod issuer;
mod output;
mod recorder;
mod reference;
pub(crate) mod tls;
mod wire;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

pub(crate) use backend::Backend;
pub(crate) use client::Client;
use crds::{
    config::{HttpListener, Protocol},
    units::{Address, ListenAddress},
};
pub(crate) use output::Output;
use prometheus_client::registry::Registry;
pub(crate) use recorder::Recorder;
pub(crate) use reference::Reference;
use serde_json::{Value, json};
use sidecar::{
    balance::{BackendSet, Endpoint, SiteInput},
    discovery::dns::SystemDns,
    http::{Gate, KeySets, Keyring, Listener, Means, Metrics, Parts},
    net::Workers,
    telemetry::{lines::Lines, spans::Exporters},
};
use tokio::sync::watch;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};
pub(crate) use wire::{Ended, Message};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Fails the test when something takes longer than it ever should.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Waits for a condition, letting everything else run.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    in_time(what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        while !condition() {
            tick.tick().await;
        }
    })
    .await;
}

/// A listener on a free port, with two threads.
pub(crate) struct Sidecar {
    pub(crate) listener: Listener,
    pub(crate) registry: Registry,
    pub(crate) sites: Vec<Site>,
    /// The access log.
    pub(crate) output: Output,
    config: HttpListener,
    parts: Parts,
    means: Means,
    pub(crate) keyring: Keyring,
    _followed: AbortOnDropHandle<()>,
    workers: Workers,
}

/// A site, and the hand on its backend sets.
pub(crate) struct Site {
    name: String,
    sets: watch::Sender<Arc<BackendSet>>,
    tls: Option<Arc<tls::Client>>,
    protocol: Protocol,
}

impl Site {
    pub(crate) fn new(name: &str, backends: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            sets: watch::Sender::new(set(backends)),
            tls: None,
            protocol: Protocol::Http1,
        }
    }

    /// A site that is met within TLS.
    pub(crate) fn within(tls: Arc<tls::Client>, backends: &[SocketAddr]) -> Self {
        Self { tls: Some(tls), ..Self::new("primary", backends) }
    }

    /// The same, with this protocol spoken.
    pub(crate) fn speaking(self, protocol: Protocol) -> Self {
        Self { protocol, ..self }
    }

    pub(crate) fn set(&self, backends: &[SocketAddr]) {
        self.sets.send_replace(set(backends));
    }

    pub(crate) fn send(&self, set: BackendSet) {
        self.sets.send_replace(Arc::new(set));
    }

    pub(crate) fn input(&self) -> SiteInput {
        SiteInput {
            name: self.name.clone(),
            backends: self.sets.subscribe(),
            tls: self.tls.clone(),
            protocol: Some(self.protocol),
        }
    }
}

/// A configuration on the loopback. Its backends are checked at the start and then hardly ever.
pub(crate) fn listener(name: &str, port: u16, fields: Value) -> HttpListener {
    let mut config = json!({"name": name, "port": port, "sites": [], "health": {"interval": "1h"}});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

fn set(backends: &[SocketAddr]) -> Arc<BackendSet> {
    let mut endpoints: Vec<_> = backends.iter().map(|&address| Endpoint::at(address)).collect();
    endpoints.sort();
    Arc::new(BackendSet { endpoints, unavailable: Vec::new(), answered: true })
}

impl Sidecar {
    /// One site with these backends, all of them checked.
    pub(crate) async fn start(backends: &[SocketAddr]) -> Self {
        let sidecar = Self::with_sites(vec![Site::new("primary", backends)]);
        sidecar.ready().await;
        sidecar
    }

    /// Backends are checked only at the start, so that tests see what requests alone bring about.
    pub(crate) fn with_sites(sites: Vec<Site>) -> Self {
        Self::with_config(json!({}), sites)
    }

    /// A listener with these fields of its configuration besides.
    pub(crate) fn with_config(fields: Value, sites: Vec<Site>) -> Self {
        Self::start_with(listener("test", 0, fields), None, sites)
    }

    /// The same on an address, and within TLS.
    pub(crate) fn open(address: ListenAddress, server: Option<Arc<tls::Server>>, sites: Vec<Site>) -> Self {
        let config = HttpListener { address, ..listener("test", 0, json!({})) };
        Self::start_with(config, server, sites)
    }

    pub(crate) fn start_with(
        config: HttpListener,
        server: Option<Arc<tls::Server>>,
        sites: Vec<Site>,
    ) -> Self {
        let workers = Workers::start(2).unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let output = Output::default();
        let lines = Lines::start(output.clone(), &mut registry).unwrap();
        let (tls, dns) = (sidecar::net::tls::Store::default(), Arc::new(SystemDns::default()));
        let sets = KeySets::register(&mut registry, tls.clone(), dns.clone());
        let keyring = Keyring { sets, ..Keyring::default() };
        let followed = AbortOnDropHandle::new(tokio::spawn(keyring.clone().follow()));
        let exporters = Exporters::register(&mut registry, tls, dns, TaskTracker::new());
        let means = Means { lines, keyring: keyring.clone(), exporters };
        let parts = Parts {
            tls: server,
            gate: Arc::new(Gate::new(&config, &means, None).unwrap()),
            sites: sites.iter().map(Site::input).collect(),
        };
        let listener = Listener::open(&config, parts.clone(), &workers, metrics).unwrap();
        Self {
            listener,
            registry,
            sites,
            output,
            config,
            parts,
            means,
            keyring,
            _followed: followed,
            workers,
        }
    }

    /// Waits until each backend of the sets has had its first check. Requests on new connections go by that.
    pub(crate) async fn ready(&self) {
        let addresses: Vec<_> = self
            .sites
            .iter()
            .flat_map(|site| site.sets.borrow().endpoints.clone())
            .map(|endpoint| endpoint.address)
            .collect();
        until("the first checks", || {
            let text = self.text();
            let checked = |address: &Address| {
                let backend = format!("backend=\"{address}\"");
                text.lines()
                    .any(|line| line.starts_with("sidecar_http_backend_up{") && line.contains(&backend))
            };
            addresses.iter().all(checked)
        })
        .await;
    }

    /// The same sites under another configuration.
    pub(crate) fn reconfigure(&mut self, change: impl FnOnce(&mut HttpListener)) {
        change(&mut self.config);
        let gate = Gate::new(&self.config, &self.means, Some(&self.parts.gate)).unwrap();
        self.parts.gate = Arc::new(gate);
        self.listener.update(&self.config, self.parts.clone());
    }

    /// The same sites, and these fields of the configuration.
    pub(crate) fn take(&mut self, fields: Value) {
        self.reconfigure(|config| *config = listener("test", 0, fields));
    }

    /// The listener, and what must live as long as it.
    pub(crate) fn into_parts(self) -> (Listener, Workers) {
        (self.listener, self.workers)
    }

    /// The same with the access log, whose last lines come when the listener has drained.
    pub(crate) fn into_logged(self) -> (Listener, Output, Workers) {
        (self.listener, self.output, self.workers)
    }

    /// New connections begin with this from now on.
    pub(crate) fn update_tls(&mut self, server: Option<Arc<tls::Server>>) {
        self.parts.tls = server;
        self.listener.update(&self.config, self.parts.clone());
    }

    /// Replaces the sites.
    pub(crate) fn update(&mut self, sites: Vec<Site>) {
        self.parts.sites = sites.iter().map(Site::input).collect();
        self.listener.update(&self.config, self.parts.clone());
        self.sites = sites;
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address().ip().unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    /// GET on a connection of its own.
    pub(crate) async fn get(&self, path: &str) -> Message {
        self.client().await.get(path).await
    }

    /// The value of the series that begins with this text.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let text = self.text();
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// An address that refuses.
pub(crate) async fn refusing() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// Takes a backend down: from now on its address refuses.
pub(crate) async fn take_down(backend: Backend) {
    let address = backend.address;
    drop(backend);
    until("the address refuses", || std::net::TcpStream::connect(address).is_err()).await;
}
