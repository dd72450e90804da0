//! Every kind of change to a configuration, while clients go on asking on connections that they keep.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use crds::config::{HttpListener, SidecarConfig, Site};
use serde_json::{Value, json};

use crate::support::{Backend, Sidecar, free_port, get, retry};

const CLIENTS: usize = 3;

/// Requests that each client makes under each configuration, at least.
const REQUESTS: usize = 20;

/// Clients that ask without a pause. Each stays on its connection until the sidecar asks it to leave.
struct Load {
    counts: Arc<[AtomicUsize; CLIENTS]>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: SocketAddr) -> Self {
        let (counts, stop) = (Arc::<[AtomicUsize; CLIENTS]>::default(), Arc::<AtomicBool>::default());
        let clients = (0..CLIENTS).map(|client| {
            let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
            thread::spawn(move || {
                let (mut failures, mut connection) = (Vec::new(), None);
                while !stop.load(Ordering::Relaxed) {
                    match request(address, &mut connection) {
                        Ok(200) => {}
                        Ok(status) => failures.push(format!("status {status}")),
                        Err(error) => failures.push(error.to_string()),
                    }
                    counts[client].fetch_add(1, Ordering::Relaxed);
                }
                failures
            })
        });
        Self { clients: clients.collect(), counts, stop }
    }

    /// Waits until all that was under way before is over, and much more.
    fn go_on(&self) {
        let before = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        retry("more requests", || {
            let mut pairs = self.counts.iter().zip(before);
            pairs.all(|(now, before)| now.load(Ordering::Relaxed) > before + REQUESTS).then_some(())
        });
    }

    fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    }
}

fn request(address: SocketAddr, kept: &mut Option<BufReader<TcpStream>>) -> std::io::Result<u16> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => BufReader::new(TcpStream::connect(address)?),
    };
    connection.get_mut().write_all(
        b"GET /bucket/key HTTP/1.1\r\nHost: test\r\nX-Tenant: one\r\nX-Api-Key: 0123456789abcdef\r\n\r\n",
    )?;
    let mut head = Vec::new();
    let mut line = String::new();
    while connection.read_line(&mut line)? > 2 {
        head.push(std::mem::take(&mut line).trim().to_ascii_lowercase());
    }
    let field = |name: &str| head.iter().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
    let length = field("content-length: ").and_then(|length| length.parse().ok()).unwrap_or(0);
    connection.read_exact(&mut vec![0; length])?;
    let status = field("http/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    if field("connection: close").is_none() {
        *kept = Some(connection);
    }
    status.ok_or_else(|| std::io::Error::other(format!("no answer: {head:?}")))
}

/// A configuration that can be changed, and the sidecar that follows it.
pub(crate) struct Subject {
    sidecar: Sidecar,
    generation: u64,
    pub(crate) config: Value,
}

impl Subject {
    fn start(listener: Value) -> Self {
        Self::with(json!({"http": [listener]}))
    }

    pub(crate) fn with(config: Value) -> Self {
        let mut subject = Self { sidecar: Sidecar::start(&[]), generation: 0, config };
        subject.write();
        subject.sidecar.wait_ready();
        subject
    }

    /// Writes the configuration, and waits until it is the one that counts.
    pub(crate) fn write(&mut self) {
        self.generation += 1;
        let policy = json!({"namespace": "a", "name": "b", "generation": self.generation});
        self.config["policy"] = policy;
        self.sidecar.write(&self.config.to_string());
        let expected = format!("sidecar_config_generation {}\n", self.generation);
        retry("the change", || get(self.sidecar.admin, "/metrics")?.1.contains(&expected).then_some(()));
    }
}

/// The fields of a part of the configuration but for these.
pub(crate) fn fields_of<T: schemars::JsonSchema>(but: &[&str]) -> BTreeSet<String> {
    let schema = schemars::schema_for!(T).to_value();
    let fields = schema["properties"].as_object().unwrap().keys().cloned();
    fields.filter(|field| !but.contains(&field.as_str())).collect()
}

/// Fields of the listener that goes on serving, each with a value; the change after it takes that away again.
fn listener_changes(other: SocketAddr, keys: &Path) -> Vec<(&'static str, Value)> {
    let other = json!([{"name": "other", "backends": [{"addresses": [other]}]}]);
    vec![
        ("sites", other),
        ("balance", json!("PeakEwma")),
        ("balance", json!("RoundRobin")),
        ("balance", json!("Random")),
        ("hashHeader", json!("X-Tenant")),
        ("slowStart", json!("10s")),
        ("trafficDistribution", json!("None")),
        ("outlierDetection", json!({"consecutiveErrors": 1})),
        ("backendLimits", json!({"maxRequests": 100, "maxConnections": 100, "maxPending": 100})),
        ("timeouts", json!({"firstByte": "10s", "total": "1m", "keepAlive": "1s"})),
        ("health", json!({"path": "/", "interval": "100ms", "initial": "Down"})),
        ("forwardedHeaders", json!(true)),
        ("downAnswer", json!("BackendDown")),
        ("sidekick", json!({"health": true, "certificates": true, "metrics": true})),
        ("tls", json!({"selfSigned": {"hosts": ["localhost"]}})),
        ("accessLog", json!({})),
        ("accessLog", json!({"of": "All", "statuses": [404, "500-599"], "errorsOnly": true})),
        ("tracing", json!({})),
        ("maxBodySize", json!("1Mi")),
        ("rateLimits", json!([{"name": "all", "requests": 1_000_000}])),
        ("authentication", json!({"apiKeys": {"file": keys}})),
    ]
}

/// The same of a site.
fn site_changes(one: SocketAddr, two: SocketAddr, secure: SocketAddr) -> Vec<(&'static str, Value)> {
    let secured = json!([{"addresses": [secure]}]);
    vec![
        ("backends", json!([{"addresses": [one]}])),
        ("backends", json!([{"addresses": [two]}])),
        ("backends", json!([{"addresses": [one], "weight": 0}, {"addresses": [two], "weight": 7}])),
        ("tls", json!({"tls": {"insecureSkipVerify": true}, "backends": secured})),
        ("protocol", json!({"protocol": "Http2", "tls": {"insecureSkipVerify": true}, "backends": secured})),
    ]
}

#[test]
fn no_kind_of_change_drops_a_request() {
    let (one, two) = (Backend::start("one"), Backend::start("two"));
    let listener = |port: u16, fields: Value| {
        let mut listener = json!({"name": "web", "port": port, "sites": [
            {"name": "main", "backends": [{"addresses": [one.address, two.address]}]},
        ]});
        listener.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        listener
    };
    let secure = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let _terminator =
        Subject::start(listener(secure.port(), json!({"tls": {"selfSigned": {"hosts": ["localhost"]}}})));
    let port = free_port();
    let mut subject = Subject::start(listener(port, json!({})));
    let load = Load::start(([127, 0, 0, 1], port).into());
    let before = subject.config.clone();
    let (mut changed, mut site_changed) = (BTreeSet::new(), BTreeSet::new());

    let keys = subject.sidecar.config().with_file_name("keys");
    std::fs::write(&keys, "app 0123456789abcdef\n").unwrap();
    for (field, value) in listener_changes(two.address, &keys) {
        subject.config = before.clone();
        let target = &mut subject.config["http"][0];
        if field == "hashHeader" {
            target["balance"] = json!("HeaderHash");
        }
        target[field] = value;
        changed.insert(field.to_owned());
        subject.write();
        load.go_on();
    }
    for (field, value) in site_changes(one.address, two.address, secure) {
        subject.config = before.clone();
        let target = &mut subject.config["http"][0]["sites"][0];
        match value {
            Value::Object(together) => target.as_object_mut().unwrap().extend(together),
            value => target[field] = value,
        }
        site_changed.insert(field.to_owned());
        subject.write();
        load.go_on();
    }
    // What stands beside the listener.
    subject.config = before.clone();
    let beside = |fields: Value| json!([before["http"][0], listener(free_port(), fields)]);
    for (field, value) in [
        ("http", beside(json!({"name": "beside"}))),
        ("http", beside(json!({"name": "renamed"}))),
        ("http", before["http"].clone()),
        ("drainTimeout", json!("5s")),
        ("tcp", json!([{"name": "db", "port": free_port(), "backends": [{"addresses": [one.address]}]}])),
        ("udp", json!([{"name": "names", "port": free_port(), "backends": [{"addresses": [one.address]}]}])),
    ] {
        subject.config[field] = value;
        subject.write();
        load.go_on();
    }

    assert_eq!(load.failures(), Vec::<String>::new());
    assert_eq!(changed, fields_of::<HttpListener>(&["name", "address", "port"]), "each field has a change");
    assert_eq!(site_changed, fields_of::<Site>(&["name"]), "each field of a site has a change");
    let all = ["drainTimeout", "http", "tcp", "udp"];
    assert_eq!(fields_of::<SidecarConfig>(&["policy"]), all.map(str::to_owned).into());
}
