//! A sidecar with one UDP listener, backends that answer, and clients.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use crds::config::UdpListener as Config;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sidecar::{
    balance::{BackendSet, Endpoint, SiteInput},
    l4::{Access, UdpListener, UdpMetrics, UdpParts},
    net::Workers,
    telemetry::lines::Lines,
};
use tokio::{net::UdpSocket, sync::watch, time::timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{Output, in_time};

/// A UDP listener on a free port, with two threads.
pub(crate) struct Udp {
    pub(crate) listener: UdpListener,
    /// Where the access log goes.
    pub(crate) output: Output,
    lines: Lines,
    sets: watch::Sender<Arc<BackendSet>>,
    registry: Registry,
    workers: Workers,
}

/// A configuration on the loopback.
fn config(fields: Value) -> Config {
    let mut config = json!({"name": "test", "port": 0, "backends": []});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    serde_json::from_value(config).unwrap()
}

fn set(backends: &[SocketAddr]) -> Arc<BackendSet> {
    let mut endpoints: Vec<_> = backends.iter().map(|&address| Endpoint::at(address)).collect();
    endpoints.sort();
    Arc::new(BackendSet { endpoints, unavailable: Vec::new(), answered: true })
}

impl Udp {
    pub(crate) fn start(backends: &[SocketAddr]) -> Self {
        Self::with_config(json!({}), backends)
    }

    /// With these fields of the configuration besides.
    pub(crate) fn with_config(fields: Value, backends: &[SocketAddr]) -> Self {
        let workers = Workers::start(2).unwrap();
        let mut registry = Registry::default();
        let metrics = UdpMetrics::register(&mut registry);
        let sets = watch::Sender::new(set(backends));
        let output = Output::default();
        let lines = Lines::start(output.clone(), &mut registry).unwrap();
        let config = config(fields);
        let parts = parts(&config, &sets, &lines);
        let listener = UdpListener::open(&config, parts, &workers, &metrics).unwrap();
        Self { listener, output, lines, sets, registry, workers }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.listener.address().ip().unwrap()
    }

    /// Other backends.
    pub(crate) fn set(&self, backends: &[SocketAddr]) {
        self.sets.send_replace(set(backends));
    }

    /// The same backends under another configuration.
    pub(crate) fn update(&self, fields: Value) {
        let config = config(fields);
        self.listener.update(&config, parts(&config, &self.sets, &self.lines));
    }

    pub(crate) async fn client(&self) -> Client {
        Client::of(self.address()).await
    }

    /// The value of the series that begins with this text.
    pub(crate) fn metric(&self, series: &str) -> Option<f64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let line = text.lines().find(|line| line.starts_with(series))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    pub(crate) fn dropped(&self, cause: &str) -> f64 {
        self.metric(&format!("sidecar_udp_dropped_total{{listener=\"test\",cause=\"{cause}\"}}")).unwrap()
    }

    /// Of a backend.
    pub(crate) fn of_backend(&self, family: &str, backend: SocketAddr) -> f64 {
        self.metric(&format!("sidecar_udp_{family}{{listener=\"test\",backend=\"{backend}\"}}")).unwrap()
    }

    /// The listener, and what must live as long as it.
    pub(crate) fn into_parts(self) -> (UdpListener, Workers) {
        (self.listener, self.workers)
    }
}

fn parts(config: &Config, sets: &watch::Sender<Arc<BackendSet>>, lines: &Lines) -> UdpParts {
    let backends =
        SiteInput { name: "all".to_owned(), backends: sets.subscribe(), tls: None, protocol: None };
    let access = config.access_log.as_ref().map(|log| Arc::new(Access::new(log, lines)));
    UdpParts { access, backends, check_tls: None }
}

/// A server that answers each datagram with some of its own.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    sources: Arc<Mutex<Vec<SocketAddr>>>,
    task: AbortOnDropHandle<()>,
}

impl Backend {
    /// Answers with its name, a space, and what it was sent.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::at("127.0.0.1", move |datagram| vec![[name.as_bytes(), b" ", datagram].concat()]).await
    }

    pub(crate) async fn at(ip: &str, answer: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Self {
        let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).await.unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20).unwrap();
        let address = socket.local_addr().unwrap();
        let sources = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&sources);
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                seen.lock().unwrap().push(from);
                for answer in answer(&buffer[..length]) {
                    // A session may have ended.
                    let _ = socket.send_to(&answer, from).await;
                }
            }
        }));
        Self { address, sources, task }
    }

    /// Where its datagrams came from, in their order.
    pub(crate) fn sources(&self) -> Vec<SocketAddr> {
        self.sources.lock().unwrap().clone()
    }

    /// From now on its address refuses.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A client of one address, which takes answers from there alone.
pub(crate) struct Client(pub(crate) UdpSocket);

impl Client {
    pub(crate) async fn of(address: SocketAddr) -> Self {
        let own = if address.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let socket = UdpSocket::bind(own).await.unwrap();
        socket2::SockRef::from(&socket).set_recv_buffer_size(1 << 20).unwrap();
        socket.connect(address).await.unwrap();
        Self(socket)
    }

    pub(crate) async fn send(&self, datagram: impl AsRef<[u8]>) {
        self.0.send(datagram.as_ref()).await.unwrap();
    }

    pub(crate) async fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 1 << 16];
        let length = in_time("an answer", self.0.recv(&mut buffer)).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    pub(crate) async fn ask(&self, text: &str) -> String {
        self.send(text).await;
        String::from_utf8(self.receive().await).unwrap()
    }

    /// Sends again, as clients do, until there is an answer; gives it and the number of tries.
    pub(crate) async fn insist(&self, text: &str) -> (String, usize) {
        let mut buffer = vec![0; 1 << 16];
        for tries in 1..100 {
            self.send(text).await;
            if let Ok(length) = timeout(Duration::from_millis(200), self.0.recv(&mut buffer)).await {
                return (String::from_utf8(buffer[..length.unwrap()].to_vec()).unwrap(), tries);
            }
        }
        panic!("nobody answers");
    }

    /// Whether there is nothing to receive now.
    pub(crate) fn is_silent(&self) -> bool {
        self.0.try_recv(&mut [0; 16]).is_err()
    }
}
