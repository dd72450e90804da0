//! One open listener: the acceptor, a share of each thread, and the balancer behind them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use crds::{config::HttpListener, units::Address};
use tokio::{sync::watch, task::spawn_local};

use super::{
    Gate, Metrics,
    metrics::{Counters, ListenerMetrics, ThreadCounters},
    settings::Settings,
    thread::{Share, Thread, Tls},
};
use crate::{
    balance::{Balancer, Checked, RetryBudget, SiteInput, Watcher},
    net::{BindError, Front, Workers, tls::Server},
};

/// What a listener is opened with beside its configuration.
#[derive(Clone, Default)]
pub struct Parts {
    pub tls: Option<Arc<Server>>,
    pub gate: Arc<Gate>,
    pub sites: Vec<SiteInput>,
}

/// An open listener. Dropping it closes it and all its connections at once; [`Listener::drain`] lets requests finish.
pub struct Listener {
    front: Front,
    balancer: Balancer<Counters>,
    metrics: Arc<ListenerMetrics>,
    tls: Tls,
    settings: Arc<ArcSwap<Settings>>,
    gate: watch::Sender<Arc<Gate>>,
}

impl Listener {
    /// Binds and starts to serve. Must be called within the control runtime, which also runs the checks.
    pub fn open(
        config: &HttpListener,
        parts: Parts,
        workers: &Workers,
        metrics: Arc<Metrics>,
    ) -> Result<Self, BindError> {
        let Parts { tls, gate, sites } = parts;
        let (front, lanes) = Front::open(&config.name, &config.socket_address(), workers)?;
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
        let tls = Arc::new(ArcSwapOption::new(tls));
        let settings = Arc::new(ArcSwap::from_pointee(Settings::from(config)));
        for ((worker, lane), counters) in workers.iter().zip(lanes).zip(&shown.threads) {
            let share = Share {
                listener: Arc::clone(front.name()),
                lane,
                route: balancer.route(),
                gate: gate.subscribe(),
                budget: Arc::clone(&budget),
                counters: Arc::clone(counters),
                tls: Arc::clone(&tls),
                settings: Arc::clone(&settings),
            };
            worker.run(move || drop(spawn_local(Thread::run(share))));
        }
        Ok(Self { front, balancer, metrics: shown, tls, settings, gate })
    }

    pub fn name(&self) -> &str {
        &self.metrics.name
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &Address {
        self.front.address()
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

    /// Goes on accepting, and asks each client to go elsewhere once it has its answer; idle connections are closed.
    pub fn leave(&self) {
        self.front.leave();
    }

    /// Stops accepting, lets requests finish and closes connections; what is left after `limit` is cut off.
    pub async fn drain(self, limit: Duration) {
        let threads = &self.metrics.threads;
        let connections = || threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum();
        self.front.drain(limit, connections).await;
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
