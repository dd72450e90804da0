//! build -> serve -> drain. One control loop owns all state and is the only one that changes it.
//!
//! Readings of the configuration come in, are judged, checked and applied; a signal ends the loop and starts the drain.
//! Everything that runs beside the loop is in one [`TaskTracker`] and ends with one token.

mod control;
mod drain;
mod health;
mod listeners;
mod plan;
mod signals;

use std::{io, net::SocketAddr, num::NonZeroUsize, path::PathBuf, sync::Arc, time::Duration};

pub use health::{Health, Status};
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{control::Control, signals::Signals};
use crate::{
    admin::{self, AdminError},
    config::source,
    discovery::{Discovery, cluster::Cluster, dns::SystemDns, state::StateDir},
    http,
    net::{self, Workers},
    telemetry,
};

/// Tasks get this time to end after all connections are closed.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// Readings that wait for the control loop; the sources wait when there are more.
const PENDING_READINGS: usize = 4;

/// What the process was asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    pub config: PathBuf,
    pub config_map: Option<ConfigMapName>,
    pub state_dir: Option<PathBuf>,
    pub threads: NonZeroUsize,
    pub admin_address: SocketAddr,
    /// Of this process; none where it is not known.
    pub zone: Option<String>,
    pub mode: Mode,
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

async fn serve(options: Options) -> Result<(), RuntimeError> {
    let mut signals = Signals::install().map_err(RuntimeError::Signals)?;
    net::raise_descriptor_limit();
    let workers = Workers::start(options.threads.get()).map_err(RuntimeError::Threads)?;
    let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());

    let mut registry = Registry::default();
    telemetry::process::register(&mut registry);
    let metrics = telemetry::metrics::Control::register(&mut registry);
    let http_metrics = http::Metrics::register(&mut registry);
    let tls = net::tls::Store::register(&mut registry);
    tasks.spawn(stop.clone().run_until_cancelled_owned(tls.clone().follow()));
    let health = Arc::new(Health::new());
    let endpoints = admin::Endpoints::new(health.clone(), registry);
    let admin = admin::Server::bind(options.admin_address).await?;
    tasks.spawn(admin.serve(Arc::new(endpoints), tasks.clone(), stop.clone()));

    let cluster = Arc::new(Cluster::default());
    let state = Arc::new(StateDir::new(options.state_dir.clone()));
    let discovery = Discovery::new(
        cluster.clone(),
        Arc::new(SystemDns::default()),
        state.clone(),
        tasks.clone(),
        stop.clone(),
    )
    .in_zone(options.zone.as_deref());
    let mut readings = follow_configuration(&options, &cluster, &tasks, &stop);
    let mut control = Control::new(
        options.admin_address,
        workers,
        http_metrics,
        tls,
        metrics,
        discovery,
        state,
        health.clone(),
    );
    tracing::info!(config = %options.config.display(), threads = options.threads, "started");

    let signal = control.run(&mut readings, &mut signals).await;
    tracing::info!(signal, mode = ?options.mode, "stopping");
    let drained = health.beating(control.drain(options.mode));
    tokio::select! {
        () = drained => tracing::info!("stopped"),
        signal = signals.next() => tracing::warn!(signal, "stopped at once by a second signal"),
    }
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
    let file = source::file::follow(options.config.clone(), sender.clone());
    tasks.spawn(stop.clone().run_until_cancelled_owned(file));
    if let Some(ConfigMapName { namespace, name }) = options.config_map.clone() {
        let api = source::api::follow(cluster.clone(), namespace, name, sender);
        tasks.spawn(stop.clone().run_until_cancelled_owned(api));
    }
    readings
}
