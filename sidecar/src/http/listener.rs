//! One open listener: the acceptor, a share of each thread, and the balancer behind them.

use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use crds::{config::HttpListener, units::Address};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_local,
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    Gate, GateError, Metrics,
    metrics::{Counters, ListenerMetrics, ThreadCounters},
    settings::Settings,
    thread::{Phase, Share, Thread, Tls},
};
use crate::{
    balance::{Balancer, Checked, RetryBudget, SiteInput, Watcher},
    net::{
        Acceptor, Workers, bind,
        tls::{Server, TlsError},
    },
};

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "listener {listener} cannot listen on {address}: {source}; {}", remedy(.address, .source)
    )]
    Bind { listener: String, address: Address, source: io::Error },
    #[error("listener {listener}: {place}: {source}")]
    Tls { listener: String, place: String, source: TlsError },
    #[error("listener {listener}: {source}")]
    Gate { listener: String, source: GateError },
}

fn remedy(address: &Address, error: &io::Error) -> &'static str {
    match (address, error.kind()) {
        (Address::Ip(_), _) => "choose another port, or stop what uses it",
        (Address::Unix(_), io::ErrorKind::AddrInUse) => "choose another path, or stop what uses it",
        (Address::Unix(_), _) => "create its directory, writable for this process",
    }
}

/// What a listener is opened with beside its configuration.
#[derive(Clone, Default)]
pub struct Parts {
    pub tls: Option<Arc<Server>>,
    pub gate: Arc<Gate>,
    pub sites: Vec<SiteInput>,
}

/// An open listener. Dropping it closes it and all its connections at once; [`Listener::drain`] lets requests finish.
pub struct Listener {
    address: Address,
    balancer: Balancer<Counters>,
    metrics: Arc<ListenerMetrics>,
    phase: watch::Sender<Phase>,
    tls: Tls,
    settings: Arc<ArcSwap<Settings>>,
    gate: watch::Sender<Arc<Gate>>,
    stop: CancellationToken,
    acceptor: AbortOnDropHandle<()>,
    /// Ends when all threads have no connection left.
    done: mpsc::Receiver<()>,
}

impl Listener {
    /// Binds and starts to serve. Must be called within the control runtime, which also runs the checks.
    pub fn open(
        config: &HttpListener,
        parts: Parts,
        workers: &Workers,
        metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let Parts { tls, gate, sites } = parts;
        let failed = |source| OpenError::Bind {
            listener: config.name.clone(),
            address: config.socket_address(),
            source,
        };
        let socket = bind(&config.socket_address()).map_err(failed)?;
        let address = socket.address().map_err(failed)?;
        let (acceptor, queues) = Acceptor::new(socket, workers).map_err(failed)?;
        let workers = workers.handles();
        let gate = watch::Sender::new(gate);
        let name: Arc<str> = config.name.as_str().into();
        let watcher = watcher(Arc::clone(&name), gate.subscribe());
        let balancer = Balancer::watched(&name, config.into(), sites, watcher);
        let shown = Arc::new(ListenerMetrics {
            name: config.name.clone(),
            route: balancer.route(),
            gate: gate.subscribe(),
            threads: workers.iter().map(|_| Arc::<ThreadCounters>::default()).collect(),
        });
        metrics.add(&shown);

        let budget = Arc::new(RetryBudget::new(Instant::now()));
        let phase = watch::Sender::new(Phase::Serving);
        let tls = Arc::new(ArcSwapOption::new(tls));
        let settings = Arc::new(ArcSwap::from_pointee(Settings::from(config)));
        let (sender, done) = mpsc::channel(1);
        for ((worker, queue), counters) in workers.iter().zip(queues).zip(&shown.threads) {
            let share = Share {
                listener: Arc::clone(&name),
                queue,
                route: balancer.route(),
                gate: gate.subscribe(),
                phase: phase.subscribe(),
                budget: Arc::clone(&budget),
                counters: Arc::clone(counters),
                done: sender.clone(),
                tls: Arc::clone(&tls),
                settings: Arc::clone(&settings),
            };
            worker.run(move || drop(spawn_local(Thread::run(share))));
        }
        let stop = CancellationToken::new();
        let acceptor = AbortOnDropHandle::new(tokio::spawn(acceptor.run(stop.clone())));
        tracing::info!(listener = %name, %address, "listening");
        Ok(Self { address, balancer, metrics: shown, phase, tls, settings, gate, stop, acceptor, done })
    }

    pub fn name(&self) -> &str {
        &self.metrics.name
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Other sites, rules, settings, TLS or another gate from now on; name, address and port stay. Backends that stay keep
    /// their health and counters, connections the TLS that they were opened with, and requests their gate.
    pub fn update(&self, config: &HttpListener, parts: Parts) {
        let Parts { tls, gate, sites } = parts;
        self.tls.store(tls);
        self.gate.send_replace(gate);
        self.settings.store(Arc::new(config.into()));
        self.balancer.update(config.into(), sites);
    }

    /// True once each backend set has answered.
    pub fn answered(&self) -> watch::Receiver<bool> {
        self.balancer.answered()
    }

    /// Requests being served now.
    pub fn requests(&self) -> usize {
        self.metrics.threads.iter().map(|thread| thread.requests.load(Ordering::Relaxed)).sum()
    }

    /// Connections open now, with a request or without.
    pub fn connections(&self) -> usize {
        self.metrics.threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum()
    }

    /// No connection is open.
    pub fn idle(&self) -> bool {
        self.connections() == 0
    }

    /// Stops accepting, lets requests finish and closes connections; what is left after `limit` is cut off.
    pub async fn drain(mut self, limit: Duration) {
        self.stop.cancel();
        self.phase.send_replace(Phase::Draining);
        let drained = timeout(limit, async {
            if (&mut self.acceptor).await.is_err() {
                tracing::error!(listener = self.metrics.name, "accepting had ended before");
            }
            // Nothing is ever sent: this is the end of all senders.
            self.done.recv().await;
        });
        if drained.await.is_err() {
            let (listener, connections) = (&self.metrics.name, self.connections());
            tracing::warn!(listener, connections, "draining took too long, connections are cut off");
        }
        tracing::info!(listener = self.metrics.name, address = %self.address, "closed");
    }
}

/// Writes the checks of backends where the gate of the moment has a log for them.
fn watcher(listener: Arc<str>, gate: watch::Receiver<Arc<Gate>>) -> Watcher {
    Arc::new(move |check: &Checked<'_>| {
        if let Some(log) = gate.borrow().checks() {
            log.take_in(&listener, check);
        }
    })
}
