//! The program as a process, and what it costs.

use std::{
    fs,
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{free_port, run, until};

const PATIENCE: Duration = Duration::from_secs(5);

/// A running sidecar with one listener; killed when it is dropped.
pub(crate) struct Sidecar {
    pub(crate) address: SocketAddr,
    admin: SocketAddr,
    process: Child,
    directory: TempDir,
}

/// A configuration with one listener on this port, its one site, and these fields more. Checks are frequent, so that a test sees many
/// of them.
fn config(port: u16, site: &str, more: &str) -> String {
    format!(
        "drainTimeout: 1s\n\
         http:\n\
         - name: faults\n\
         \x20 address: 127.0.0.1\n\
         \x20 port: {port}\n\
         \x20 sites: [{{name: only, {site}}}]\n\
         \x20 health: {{path: /health, interval: 1s, timeout: 500ms, unhealthyThreshold: 2}}\n\
         {more}"
    )
}

/// The same with a TCP listener.
fn passing(port: u16, backends: &str) -> String {
    format!(
        "drainTimeout: 1s\n\
         tcp:\n\
         - name: faults\n\
         \x20 port: {port}\n\
         \x20 backends: [{backends}]\n\
         \x20 balance: RoundRobin\n\
         \x20 health: {{interval: 1s, timeout: 500ms}}\n"
    )
}

/// A source of these addresses, as a field of a site.
fn addresses(backends: &[SocketAddr]) -> String {
    let backends: Vec<String> = backends.iter().map(|address| format!("\"{address}\"")).collect();
    format!("backends: [{{addresses: [{}]}}]", backends.join(", "))
}

impl Sidecar {
    /// Starts one over these addresses, and waits until it serves.
    pub(crate) async fn start(backends: &[SocketAddr]) -> Self {
        Self::run(&addresses(backends), "").await
    }

    /// Starts one over these sources.
    pub(crate) async fn with(backends: &str) -> Self {
        Self::run(&format!("backends: [{backends}]"), "").await
    }

    /// Starts one over these addresses, which are asked in HTTP/2.
    pub(crate) async fn speaking_http2(backends: &[SocketAddr]) -> Self {
        Self::run(&format!("protocol: Http2, {}", addresses(backends)), "").await
    }

    /// Starts one over these addresses that logs its requests.
    pub(crate) async fn logging(backends: &[SocketAddr]) -> Self {
        Self::run(&addresses(backends), "  accessLog: {}\n").await
    }

    async fn run(site: &str, more: &str) -> Self {
        Self::configured(|port| config(port, site, more)).await
    }

    /// Starts one that passes connections on to these sources.
    pub(crate) async fn passing(backends: &str) -> Self {
        Self::configured(|port| passing(port, backends)).await
    }

    /// Other sources for the same listener.
    pub(crate) fn passes_to(&self, backends: &str) {
        let path = self.directory.path().join("next.yaml");
        fs::write(&path, passing(self.address.port(), backends)).unwrap();
        fs::rename(path, self.directory.path().join("sidecar.yaml")).unwrap();
    }

    async fn configured(config: impl FnOnce(u16) -> String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let [port, admin] = [free_port(), free_port()];
        let admin = SocketAddr::from(([127, 0, 0, 1], admin));
        let path = directory.path().join("sidecar.yaml");
        fs::write(&path, config(port)).unwrap();
        let log = fs::File::create(directory.path().join("log")).unwrap();
        let process = Command::new(env!("CARGO_BIN_EXE_sidecar"))
            .args(["run", "--log-format", "text", "--admin-address", &admin.to_string(), "--config"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let sidecar = Self { address: ([127, 0, 0, 1], port).into(), admin, process, directory };
        sidecar.wait_ready().await;
        sidecar
    }

    async fn wait_ready(&self) {
        let mut tick = tokio::time::interval(Duration::from_millis(10));
        for _ in 0..1000 {
            if self.admin_get("/ready").await.is_some_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                return;
            }
            tick.tick().await;
        }
        panic!("the sidecar is not ready: {}", self.log());
    }

    /// Ends it, and gives each line of its access log.
    pub(crate) async fn finish(mut self) -> Vec<Value> {
        run("kill", &["-TERM", &self.id().to_string()]);
        until("the end of the sidecar", || !self.is_alive()).await;
        let log = self.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["tries"].is_u64()).collect()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Open descriptors.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Waits until no more than so many descriptors are open.
    pub(crate) async fn descriptors_fall_to(&self, most: usize) {
        until(&format!("{most} descriptors (they are {})", self.descriptors()), || {
            self.descriptors() <= most
        })
        .await;
    }

    /// Processor time so far.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap();
        let mut fields = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11);
        let mut ticks = || fields.next().unwrap().parse::<u64>().unwrap();
        Duration::from_millis((ticks() + ticks()) * 10)
    }

    /// Resident memory in MiB.
    pub(crate) fn resident(&self) -> usize {
        self.memory("VmRSS:")
    }

    /// The most that it ever was.
    pub(crate) fn peak(&self) -> usize {
        self.memory("VmHWM:")
    }

    fn memory(&self, what: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(what)).unwrap();
        line.split_whitespace().next().unwrap().parse::<usize>().unwrap() / 1024
    }

    /// The sum of all series whose line begins with this text.
    pub(crate) async fn metric(&self, series: &str) -> f64 {
        let metrics = self.admin_get("/metrics").await.unwrap();
        let values = metrics.lines().filter(|line| line.starts_with(series));
        values.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    async fn admin_get(&self, path: &str) -> Option<String> {
        let ask = async {
            let mut stream = TcpStream::connect(self.admin).await.ok()?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: faults\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.ok()?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.ok()?;
            Some(answer)
        };
        timeout(PATIENCE, ask).await.ok()?
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the sidecar's last words:\n{}", lines[lines.len().saturating_sub(20)..].join("\n"));
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
