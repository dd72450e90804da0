//! One open TCP listener: the front, a share of each thread, and the balancer behind them.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use crds::{config, units::Address};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_local,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    cancel::CancelKeys,
    queue::Queue,
    rebalance::{ORDERS, Rebalancer},
    routes::Routes,
    settings::Settings,
    thread::{Share, Thread, Tls},
};
use crate::{
    balance::{Balancer, Rules, SiteInput},
    l4::{
        Access,
        metrics::{Counters, ListenerMetrics, Metrics, ThreadCounters},
    },
    net::{
        BindError, Front, Workers,
        tls::{Client, Server},
    },
};

/// What a listener is opened with beside its configuration.
#[derive(Clone)]
pub struct TcpParts {
    pub tls: Option<Arc<Server>>,
    pub access: Option<Arc<Access>>,
    /// Of clients that no route is for.
    pub backends: SiteInput,
    /// Of the routes, by their names.
    pub routes: Vec<SiteInput>,
    /// Checks go within it instead of the backends' own.
    pub check_tls: Option<Arc<Client>>,
}

/// An open listener. Dropping it closes it and all its connections at once; [`TcpListener::drain`] lets them end.
pub struct TcpListener {
    front: Front,
    balancer: Balancer<Counters>,
    routes: Routes,
    metrics: Arc<ListenerMetrics>,
    tls: Tls,
    access: Arc<ArcSwapOption<Access>>,
    settings: Arc<ArcSwap<Settings>>,
    _rebalancer: AbortOnDropHandle<()>,
}

impl TcpListener {
    /// Binds and starts to serve. Must be called within the control runtime, which also runs the checks.
    pub fn open(
        config: &config::TcpListener,
        parts: TcpParts,
        workers: &Workers,
        metrics: &Metrics,
    ) -> Result<Self, BindError> {
        let (front, lanes) = Front::open(&config.name, &config.address.at(config.port), workers)?;
        let workers = workers.handles();
        let rules = Rules::of_tcp(config, parts.check_tls);
        let balancer = Balancer::start(&config.name, rules.clone(), vec![parts.backends]);
        let routes = Routes::open(config, &rules, parts.routes);
        let queue = Arc::<Queue>::default();
        let keys = Arc::<CancelKeys>::default();
        let shown = Arc::new(ListenerMetrics {
            name: config.name.clone(),
            route: balancer.route(),
            threads: workers.iter().map(|_| Arc::<ThreadCounters>::default()).collect(),
            queue: Arc::clone(&queue),
            ways: routes.ways(),
        });
        metrics.add(&shown);
        let tls = Arc::new(ArcSwapOption::new(parts.tls));
        let access = Arc::new(ArcSwapOption::new(parts.access));
        let settings = Settings::from(config);
        watch_hosts(&front, &settings);
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let mut threads = Vec::new();
        for ((worker, lane), counters) in workers.iter().zip(lanes).zip(&shown.threads) {
            let (order, orders) = mpsc::channel(ORDERS);
            threads.push(order);
            let share = Share {
                listener: Arc::clone(front.name()),
                lane,
                route: balancer.route(),
                counters: Arc::clone(counters),
                queue: Arc::clone(&queue),
                keys: Arc::clone(&keys),
                orders,
                ways: routes.ways(),
                tls: Arc::clone(&tls),
                access: Arc::clone(&access),
                settings: Arc::clone(&settings),
            };
            worker.run(move || drop(spawn_local(Thread::run(share))));
        }
        let rebalancer = Rebalancer { route: balancer.route(), settings: Arc::clone(&settings), threads };
        let rebalancer = AbortOnDropHandle::new(tokio::spawn(rebalancer.run()));
        Ok(Self { front, balancer, routes, metrics: shown, tls, access, settings, _rebalancer: rebalancer })
    }

    pub fn name(&self) -> &str {
        self.front.name()
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &Address {
        self.front.address()
    }

    /// Other backends, rules, settings, TLS or access log for the connections to come; name, address and port stay, and so do the
    /// connections that are open.
    pub fn update(&self, config: &config::TcpListener, parts: TcpParts) {
        self.tls.store(parts.tls);
        self.access.store(parts.access);
        let settings = Settings::from(config);
        watch_hosts(&self.front, &settings);
        self.settings.store(Arc::new(settings));
        let rules = Rules::of_tcp(config, parts.check_tls);
        self.balancer.update(rules.clone(), vec![parts.backends]);
        self.routes.update(config, &rules, parts.routes);
    }

    /// True once all backend sets have answered.
    pub fn answered(&self) -> watch::Receiver<bool> {
        self.routes.answered(self.balancer.answered())
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        let threads = &self.metrics.threads;
        threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum()
    }

    /// Stops accepting and waits for clients and backends to end their connections; what is left after `limit` is cut off.
    pub async fn drain(self, limit: Duration) {
        let threads = &self.metrics.threads;
        let connections = || threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum();
        self.front.drain(limit, connections).await;
    }
}

fn watch_hosts(front: &Front, settings: &Settings) {
    if let Err(error) = front.watch_hosts(&settings.dead_hosts) {
        tracing::warn!(listener = %front.name(), %error, "clients whose hosts have gone are not noticed as they should be");
    }
}
