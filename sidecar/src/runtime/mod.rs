//! build -> serve -> drain. One control loop owns all state and is the only one that changes it.
//!
//! Readings of the configuration come in, are judged, checked and applied; a signal ends the loop and starts the drain.
//! Everything that runs beside the loop is in one [`TaskTracker`] and ends with one token.

mod control;
mod drain;
mod health;
pub(crate) mod leaving;
mod listener;
mod listeners;
mod parts;
mod plan;
mod signals;
pub(crate) mod status_socket;

use std::{fmt, io, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

pub use health::{Health, Status};
use prometheus_client::registry::Registry;
use tokio::{
    sync::{mpsc, oneshot},
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{control::Control, signals::Signals};
use crate::{
    admin::{self, AdminError},
    config::source::{self, Document, Origin, Reading},
    discovery::{Discovery, cluster::Cluster, dns::SystemDns, state::StateDir},
    http, l4,
    net::{self, Workers},
    telemetry::{self, lines::Lines, spans::Exporters},
};

/// Tasks get this time to end after all connections are closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Readings that wait for the control loop; the sources wait when there are more.
const PENDING_READINGS: usize = 4;

/// What the process was asked to do.
#[derive(Debug)]
pub struct Options {
    pub config: Configuration,
    pub state_dir: Option<PathBuf>,
    pub threads: NonZeroUsize,
    pub admin_address: SocketAddr,
    /// Of this process; none where it is not known.
    pub zone: Option<String>,
    pub mode: Mode,
    /// Ends it as a signal does.
    pub stop: CancellationToken,
    /// Told the address of the admin endpoints when the first configuration is in use.
    pub serving: Option<oneshot::Sender<SocketAddr>>,
    /// Where to tell whether a TCP or UDP listener has a live backend.
    pub status_socket: Option<PathBuf>,
}

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub enum Configuration {
    /// A file or directory, and the ConfigMap that it is a copy of, as they change.
    Followed { path: PathBuf, config_map: Option<ConfigMapName> },
    /// The caller has checked it, and it stays. Listeners that cannot be opened end the process.
    Given(Document),
}

impl fmt::Display for Configuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Followed { path, .. } => path.display().fmt(f),
            Self::Given(document) => f.write_str(&document.name),
        }
    }
}

/// The ConfigMap that the API watch follows.
#[derive(Debug, Clone)]
pub struct ConfigMapName {
    pub namespace: String,
    pub name: String,
}

/// When to stop accepting after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// At once: Kubernetes ends a native sidecar after the application.
    Native,
    /// When the application has no connection any more: it got its SIGTERM at the same time.
    Container,
}

/// Why the sidecar could not start.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("threads cannot be started ({0}); check the pod's limits on processes and memory")]
    Threads(#[source] io::Error),
    #[error("signals cannot be caught ({0})")]
    Signals(#[source] io::Error),
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The text says which address cannot be had.
    #[error("{0}")]
    Given(String),
}

/// Runs until a signal comes and the drain is over.
pub fn run(options: Options) -> Result<(), RuntimeError> {
    // The data plane's threads do the work; the control loop and its tasks need no second one.
    let control = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let control = control.map_err(RuntimeError::Threads)?;
    let result = control.block_on(serve(options));
    control.shutdown_timeout(STOP_TIMEOUT);
    result
}

async fn serve(mut options: Options) -> Result<(), RuntimeError> {
    let mut signals = Signals::install(options.stop.clone()).map_err(RuntimeError::Signals)?;
    net::raise_descriptor_limit();
    let workers = Workers::start(options.threads.get()).map_err(RuntimeError::Threads)?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());

    let mut registry = Registry::default();
    telemetry::process::register(&mut registry);
    let metrics = telemetry::metrics::Control::register(&mut registry);
    let listener_metrics = listener::Metrics {
        http: http::Metrics::register(&mut registry),
        l4: l4::Metrics::register(&mut registry),
        udp: l4::UdpMetrics::register(&mut registry),
    };
    if let Some(path) = options.status_socket.take() {
        let served = status_socket::serve(path, listener_metrics.l4.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(served));
    }
    let tls = net::tls::Store::register(&mut registry);
    let dns = Arc::new(SystemDns::default());
    let sets = http::KeySets::register(&mut registry, tls.clone(), dns.clone());
    let keyring = http::Keyring { sets, ..http::Keyring::default() };
    tasks.spawn(stop.clone().run_until_cancelled_owned(keyring.clone().follow()));
    let lines = Lines::start(io::stdout(), &mut registry).map_err(RuntimeError::Threads)?;
    // They end when their last span is sent, and not by the token, which would cut that off.
    let exporters = Exporters::register(&mut registry, tls.clone(), dns.clone(), tasks.clone());
    let means = http::Means { lines: lines.clone(), keyring, exporters };
    tasks.spawn(stop.clone().run_until_cancelled_owned(tls.clone().follow()));
    let leave = CancellationToken::new();
    if let Some(directory) = &options.state_dir {
        let heeding = leaving::heed(directory.clone(), leave.clone());
        tasks.spawn(stop.clone().run_until_cancelled_owned(heeding));
    }
    let health = Arc::new(Health::new());
    let endpoints = admin::Endpoints::new(health.clone(), registry);
    let admin = admin::Server::bind(options.admin_address).await?;
    let admin_address = admin.address().unwrap_or(options.admin_address);
    tasks.spawn(admin.serve(Arc::new(endpoints), tasks.clone(), stop.clone()));

    let cluster = Arc::new(Cluster::default());
    let state = Arc::new(StateDir::new(options.state_dir.clone()));
    let discovery = Discovery::new(cluster.clone(), dns, state.clone(), tasks.clone(), stop.clone())
        .in_zone(options.zone.as_deref());
    let mut readings = follow_configuration(&options, &cluster, &tasks, &stop);
    let serving = options.serving.take();
    let mut control = Control::new(
        admin_address,
        workers,
        listener_metrics,
        tls,
        means,
        metrics,
        discovery,
        state,
        health.clone(),
        serving,
    );
    tracing::info!(config = %options.config, threads = options.threads, "started");

    let signal = control.run(&mut readings, &mut signals, &leave).await.map_err(RuntimeError::Given)?;
    tracing::info!(signal, mode = ?options.mode, "stopping");
    let drained = health.beating(control.drain(options.mode));
    tokio::select! {
        () = drained => tracing::info!("stopped"),
        signal = signals.next() => tracing::warn!(signal, "stopped at once by a second signal"),
    }
    lines.finish(STOP_TIMEOUT).await;
    stop.cancel();
    tasks.close();
    if time::timeout(STOP_TIMEOUT, tasks.wait()).await.is_err() {
        tracing::debug!(tasks = tasks.len(), "some tasks did not end in time");
    }
    Ok(())
}

fn follow_configuration(
    options: &Options,
    cluster: &Arc<Cluster>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> mpsc::Receiver<source::Reading> {
    let (sender, readings) = mpsc::channel(PENDING_READINGS);
    match options.config.clone() {
        Configuration::Followed { path, config_map } => {
            let file = source::file::follow(path, sender.clone());
            tasks.spawn(stop.clone().run_until_cancelled_owned(file));
            if let Some(ConfigMapName { namespace, name }) = config_map {
                let api = source::api::follow(cluster.clone(), namespace, name, sender);
                tasks.spawn(stop.clone().run_until_cancelled_owned(api));
            }
        }
        Configuration::Given(document) => {
            tasks.spawn(async move { sender.send(Reading::Found { origin: Origin::Given, document }).await });
        }
    }
    readings
}
