//! One open TCP listener: the front, a share of each thread, and the balancer behind them.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use crds::{config, units::Address};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_local,
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    cancel::CancelKeys,
    queue::Queue,
    rebalance::{ORDERS, Rebalancer},
    routes::Routes,
    settings::Settings,
    thread::{Share, Thread},
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

impl TcpParts {
    /// Those whose sets answer at some time: without backends there is nobody to ask.
    fn sites(&self, config: &config::TcpListener) -> impl Iterator<Item = &SiteInput> {
        let rest = (!config.backends.is_empty()).then_some(&self.backends);
        rest.into_iter().chain(&self.routes)
    }
}

/// An open listener. Dropping it closes it and all its connections at once; [`TcpListener::drain`] lets them end.
pub struct TcpListener {
    front: Front,
    serving: Arc<Serving>,
    metrics: Arc<ListenerMetrics>,
    /// A change that is yet to take over.
    change: Mutex<Option<Change>>,
    _rebalancer: AbortOnDropHandle<()>,
}

/// A change that waits for its backend sets, until then at the latest.
struct Change {
    by: Instant,
    task: AbortOnDropHandle<()>,
}

/// What may change while the listener is open.
struct Serving {
    balancer: Balancer<Counters>,
    routes: Routes,
    settings: Arc<ArcSwap<Settings>>,
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
        let settings = Settings::new(config, parts.tls, parts.access);
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
                settings: Arc::clone(&settings),
            };
            worker.run(move || drop(spawn_local(Thread::run(share))));
        }
        let rebalancer = Rebalancer { route: balancer.route(), settings: Arc::clone(&settings), threads };
        let rebalancer = AbortOnDropHandle::new(tokio::spawn(rebalancer.run()));
        let serving = Arc::new(Serving { balancer, routes, settings });
        Ok(Self { front, serving, metrics: shown, change: Mutex::default(), _rebalancer: rebalancer })
    }

    pub fn name(&self) -> &str {
        self.front.name()
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &Address {
        self.front.address()
    }

    /// Other backends, routes, rules, settings, TLS or access log for the connections to come; name, address and port stay, and so
    /// do the connections that are open. All of it takes over together, once all backend sets have answered or have had their time:
    /// a name never leads to a route whose backends nobody has looked up. Threads hear of names, settings and backends one right
    /// after the other. Must be called within the control runtime.
    pub fn update(&self, config: &config::TcpListener, parts: TcpParts) {
        let settings = Settings::new(config, parts.tls.clone(), parts.access.clone());
        watch_hosts(&self.front, &settings);
        let mut change = self.change.lock().unwrap_or_else(PoisonError::into_inner);
        // One that waits is overtaken, and has waited for this one too: else changes in a row would never take over.
        let waited = change.take().filter(|change| !change.task.is_finished()).map(|change| change.by);
        if parts.sites(config).all(|site| site.backends.borrow().answered) {
            return self.serving.adopt(config, parts, settings);
        }
        let by = waited.unwrap_or_else(SiteInput::latest_answer);
        let (serving, config) = (Arc::clone(&self.serving), config.clone());
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            SiteInput::all_known(parts.sites(&config), by).await;
            serving.adopt(&config, parts, settings);
        }));
        *change = Some(Change { by, task });
    }

    /// True once all backend sets have answered.
    pub fn answered(&self) -> watch::Receiver<bool> {
        self.serving.routes.answered(self.serving.balancer.answered())
    }

    /// Connections open now.
    pub fn connections(&self) -> usize {
        let threads = &self.metrics.threads;
        threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum()
    }

    /// Stops accepting and waits for clients and backends to end their connections; what is left after `limit` is cut off.
    pub async fn drain(self, limit: Duration) {
        drop(self.change);
        let threads = &self.metrics.threads;
        let connections = || threads.iter().map(|thread| thread.connections.load(Ordering::Relaxed)).sum();
        self.front.drain(limit, connections).await;
    }
}

impl Serving {
    fn adopt(&self, config: &config::TcpListener, parts: TcpParts, settings: Settings) {
        let now = Instant::now();
        let rules = Rules::of_tcp(config, parts.check_tls);
        self.settings.store(Arc::new(settings));
        self.balancer.update_by(rules.clone(), vec![parts.backends], now);
        self.routes.update(config, &rules, parts.routes, now);
    }
}

fn watch_hosts(front: &Front, settings: &Settings) {
    if let Err(error) = front.watch_hosts(&settings.dead_hosts) {
        tracing::warn!(listener = %front.name(), %error, "clients whose hosts have gone are not noticed as they should be");
    }
}
