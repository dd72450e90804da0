//! A sidecar with one TCP listener, backends, and clients. All waits have a deadline.

#[path = "../http/support/output.rs"]
mod output;

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crds::config::TcpListener as Config;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sidecar::{
    balance::{BackendSet, Endpoint, SiteInput},
    l4::{Access, Metrics, TcpListener as Listener, TcpParts},
    net::{
        Workers,
        postgres::ALPN,
        tls::{Beginning, Client, Server},
    },
    telemetry::lines::Lines,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use self::output::Output;

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
    /// Where the access log goes.
    pub(crate) output: Output,
    lines: Lines,
    registry: Registry,
    sets: watch::Sender<Arc<BackendSet>>,
    workers: Workers,
}

/// A configuration on the loopback. Its backends are checked at the start and then hardly ever.
fn config(fields: Value) -> Config {
    let mut config = json!({"name": "db", "backends": [], "health": {"interval": "1h"}});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

pub(crate) fn set(backends: &[SocketAddr]) -> Arc<BackendSet> {
    let mut endpoints: Vec<_> = backends.iter().map(|&address| Endpoint::at(address)).collect();
    endpoints.sort();
    Arc::new(BackendSet { endpoints, unavailable: Vec::new(), answered: true })
}

impl Sidecar {
    pub(crate) async fn start(fields: Value, backends: &[SocketAddr]) -> Self {
        let workers = Workers::start(2).unwrap();
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let output = Output::default();
        let lines = Lines::start(output.clone(), &mut registry).unwrap();
        let (sets, receiver) = watch::channel(set(backends));
        let config = config(fields);
        let parts = parts(&config, &receiver, &lines);
        let listener = Listener::open(&config, parts, &workers, &metrics).unwrap();
        Self { listener, output, lines, registry, sets, workers }
    }

    pub(crate) fn set(&self, backends: &[SocketAddr]) {
        self.sets.send_replace(set(backends));
    }

    pub(crate) fn update(&self, fields: Value) {
        let config = config(fields);
        self.listener.update(&config, parts(&config, &self.sets.subscribe(), &self.lines));
    }

    /// The same, and nobody has looked up the backends of this route; what is sent tells them.
    pub(crate) fn update_unanswered(&self, fields: Value, route: &str) -> watch::Sender<Arc<BackendSet>> {
        let config = config(fields);
        let mut parts = parts(&config, &self.sets.subscribe(), &self.lines);
        let (answers, backends) = watch::channel(Arc::default());
        parts.routes.iter_mut().find(|site| site.name == route).unwrap().backends = backends;
        self.listener.update(&config, parts);
        answers
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address().ip().unwrap()
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        in_time("connecting", TcpStream::connect(self.address())).await.unwrap()
    }

    /// A connection whose backend has said its name, and that name.
    pub(crate) async fn greeted(&self) -> (TcpStream, u8) {
        let mut stream = self.connect().await;
        let name = in_time("a greeting", stream.read_u8()).await.unwrap();
        (stream, name)
    }

    /// The sum of the series whose text begins so.
    pub(crate) fn metric(&self, series: &str) -> f64 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let lines = text.lines().filter(|line| line.starts_with(series));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Ends as SIGTERM does.
    pub(crate) async fn drain(self, limit: Duration) {
        self.listener.drain(limit).await;
        self.workers.shutdown(Duration::from_secs(1)).await;
    }
}

fn parts(config: &Config, sets: &watch::Receiver<Arc<BackendSet>>, lines: &Lines) -> TcpParts {
    let server = config.tls.as_ref().map(|tls| Server::load(&tls.settings, ALPN).unwrap());
    let client = config.backend_tls.as_ref();
    let client = client.map(|tls| Client::load_as(&tls.settings, Beginning::of(config)).unwrap());
    let tls = client.map(Arc::new);
    let backends = SiteInput { name: "all".into(), backends: sets.clone(), tls, protocol: None };
    let access = config.access_log.as_ref().map(|log| Arc::new(Access::new(log, lines)));
    let routes = config.routes.iter().map(|route| {
        let addresses = route.backends.iter().flat_map(|backend| backend.addresses.iter().flatten());
        let addresses: Vec<_> = addresses.map(|address| address.to_string().parse().unwrap()).collect();
        let backends = watch::channel(set(&addresses)).1;
        SiteInput { name: route.name.clone(), backends, tls: None, protocol: None }
    });
    let routes = routes.collect();
    TcpParts { tls: server.map(Arc::new), access, backends, routes, check_tls: None }
}

/// A server that says its name to everyone who connects, and then echoes what it gets. An end is answered with an end.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    open: Arc<AtomicUsize>,
    _connections: Arc<Mutex<Vec<AbortOnDropHandle<()>>>>,
    _accepts: AbortOnDropHandle<()>,
}

impl Backend {
    pub(crate) async fn start(name: u8) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), name)
    }

    pub(crate) fn on(socket: TcpListener, name: u8) -> Self {
        let address = socket.local_addr().unwrap();
        let open = Arc::<AtomicUsize>::default();
        let connections = Arc::<Mutex<Vec<_>>>::default();
        let (count, kept) = (Arc::clone(&open), Arc::clone(&connections));
        let accepts = tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                let count = Arc::clone(&count);
                let task = tokio::spawn(async move {
                    // A check connects and goes without a word.
                    count.fetch_add(1, Ordering::Relaxed);
                    let _counted = Counted(count);
                    echo(stream, name).await;
                });
                kept.lock().unwrap().push(AbortOnDropHandle::new(task));
            }
        });
        Self { address, open, _connections: connections, _accepts: AbortOnDropHandle::new(accepts) }
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn echo(mut stream: TcpStream, name: u8) {
    if stream.write_u8(name).await.is_ok() {
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    }
}

/// An address where nothing listens.
pub(crate) async fn refusing() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

/// An address that answers nobody: a listener whose queue is full, for as long as the result lives.
pub(crate) async fn black_hole() -> (SocketAddr, impl Sized) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(0).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    let mut fill = Vec::new();
    while let Ok(Ok(stream)) =
        tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await
    {
        fill.push(stream);
    }
    (address, (socket, fill))
}
