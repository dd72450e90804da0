//! A listener's share of one thread: its snapshot of the route, its pools, its connections. Nothing here is shared, so
//! nothing is locked; the request path meets other threads only in the atomics of backends and budget.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    task::Waker,
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, ArcSwapOption};
use slab::Slab;
use tokio::{
    sync::{Notify, watch},
    task::JoinSet,
    time::{MissedTickBehavior, interval, timeout},
};

use super::{
    admit::Gate,
    auth::Tokens,
    h1,
    message::{RequestHead, ResponseHead},
    metrics::{Counters, ThreadCounters},
    pool::Pool,
    settings::Settings,
};
use crate::{
    balance::{RetryBudget, Route},
    net::{Lane, Phase, tls::Server},
    telemetry::journal::Journal,
};

/// How often idle connections to backends are looked through.
const SWEEP: Duration = Duration::from_secs(1);

/// A request that finds no live backend waits this long for one to come back.
const REVIVAL: Duration = Duration::from_secs(1);

/// Heads that one thread keeps for the next requests.
const SCRATCHES: usize = 64;

/// Requests that wait for that on one thread; others are told at once.
const MOST_WAITING: usize = 256;

/// What new connections begin with, if they begin with TLS.
pub(super) type Tls = Arc<ArcSwapOption<Server>>;

/// What a thread gets from its listener.
pub(super) struct Share {
    pub(super) listener: Arc<str>,
    pub(super) lane: Lane,
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) gate: watch::Receiver<Arc<Gate>>,
    pub(super) budget: Arc<RetryBudget>,
    pub(super) counters: Arc<ThreadCounters>,
    pub(super) tls: Tls,
    pub(super) settings: Arc<ArcSwap<Settings>>,
}

/// What the requests of one listener share on one thread.
pub(super) struct Thread {
    pub(super) listener: Arc<str>,
    pub(super) budget: Arc<RetryBudget>,
    pub(super) counters: Arc<ThreadCounters>,
    local: RefCell<Rc<Local>>,
    pub(super) journal: RefCell<Journal>,
    /// Of clients that were let in a moment ago, for as long as the gate is the same.
    pub(super) tokens: RefCell<Tokens>,
    random: RefCell<fastrand::Rng>,
    draining: Cell<bool>,
    tls: Tls,
    settings: Arc<ArcSwap<Settings>>,
    /// Told of each route with a live backend.
    revived: Notify,
    waiting: Cell<usize>,
    /// The connections, to be told of a drain.
    wakers: RefCell<Slab<Waker>>,
    #[expect(clippy::vec_box, reason = "they are moved in and out with each request")]
    scratches: RefCell<Vec<Box<Scratch>>>,
}

/// The heads of one request and its answer.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) request: RequestHead,
    pub(super) response: ResponseHead,
    /// Lines that a request gets on its way to a backend.
    pub(super) extra: Vec<u8>,
    /// Names of the fields that these replace.
    pub(super) without: Vec<&'static str>,
}

/// A connection that is told of a drain.
pub(super) struct Registered {
    thread: Rc<Thread>,
    key: usize,
}

/// One request in the count of those that wait.
struct Waiting<'a>(&'a Cell<usize>);

/// What requests go by: a route, the pool of each of its backends in the same order, and the gate.
pub(super) struct Local {
    pub(super) route: Arc<Route<Counters>>,
    pub(super) pools: Vec<Rc<Pool>>,
    pub(super) gate: Arc<Gate>,
}

impl Thread {
    /// Serves the connections that arrive in the queue until it ends, or until the listener is dropped.
    pub(super) async fn run(mut share: Share) {
        let thread = Rc::new(Self {
            listener: share.listener,
            budget: share.budget,
            counters: share.counters,
            local: RefCell::new(Rc::new(Local {
                route: Arc::new(Route::empty()),
                pools: Vec::new(),
                gate: share.gate.borrow_and_update().clone(),
            })),
            journal: RefCell::default(),
            tokens: RefCell::default(),
            random: RefCell::new(fastrand::Rng::new()),
            draining: Cell::new(false),
            tls: share.tls,
            settings: share.settings,
            revived: Notify::new(),
            waiting: Cell::new(0),
            wakers: RefCell::default(),
            scratches: RefCell::default(),
        });
        thread.adopt(share.route.borrow_and_update().clone());
        let mut connections = JoinSet::new();
        let mut sweep = interval(SWEEP);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut accepting, mut following, mut guarding) = (true, true, true);
        while accepting || !connections.is_empty() {
            tokio::select! {
                biased;
                changed = share.route.changed(), if following => match changed {
                    Ok(()) => thread.adopt(share.route.borrow_and_update().clone()),
                    Err(_) => following = false,
                },
                changed = share.gate.changed(), if guarding => match changed {
                    Ok(()) => thread.put_up(share.gate.borrow_and_update().clone()),
                    Err(_) => guarding = false,
                },
                changed = share.lane.phase.changed() => match changed {
                    Ok(()) => thread.enter(*share.lane.phase.borrow_and_update()),
                    Err(_) => break,
                },
                accepted = share.lane.queue.recv(), if accepting => match accepted {
                    Some(accepted) => {
                        thread.counters.connections.fetch_add(1, Ordering::Relaxed);
                        connections.spawn_local(h1::serve(Rc::clone(&thread), accepted));
                    }
                    None => accepting = false,
                },
                Some(_) = connections.join_next() => {
                    thread.counters.connections.fetch_sub(1, Ordering::Relaxed);
                }
                _ = sweep.tick() => {
                    thread.sweep();
                    thread.flush();
                }
            }
        }
        thread.counters.connections.fetch_sub(connections.len(), Ordering::Relaxed);
        connections.shutdown().await;
        thread.flush();
        drop(share.lane.done);
    }

    fn enter(&self, phase: Phase) {
        self.draining.set(phase != Phase::Serving);
        for (_, waker) in self.wakers.borrow().iter() {
            waker.wake_by_ref();
        }
    }

    /// Wakes the connection at every drain.
    pub(super) fn register(self: &Rc<Self>, waker: &Waker) -> Registered {
        let key = self.wakers.borrow_mut().insert(waker.clone());
        Registered { thread: Rc::clone(self), key }
    }

    /// Heads for one request, to be given back after it.
    pub(super) fn lend(&self) -> Box<Scratch> {
        self.scratches.borrow_mut().pop().unwrap_or_default()
    }

    pub(super) fn give_back(&self, scratch: Box<Scratch>) {
        let mut scratches = self.scratches.borrow_mut();
        if scratches.len() < SCRATCHES {
            scratches.push(scratch);
        }
    }

    /// Takes over a new route. Backends that stay keep their connections; of those that have gone, idle ones are closed.
    fn adopt(&self, route: Arc<Route<Counters>>) {
        let mut old: HashMap<u64, Rc<Pool>> =
            self.local().pools.iter().map(|pool| (pool.backend.id, Rc::clone(pool))).collect();
        let pools = route
            .backends
            .iter()
            .map(|backend| old.remove(&backend.id).unwrap_or_else(|| Rc::new(Pool::new(Arc::clone(backend)))))
            .collect();
        let gate = Arc::clone(&self.local().gate);
        self.local.replace(Rc::new(Local { route, pools, gate }));
        for gone in old.values() {
            gone.close();
        }
        if self.local().route.is_live() {
            self.revived.notify_waiters();
        }
    }

    /// Takes over a new gate for the requests to come.
    fn put_up(&self, gate: Arc<Gate>) {
        self.flush();
        self.tokens.borrow_mut().clear();
        let Local { route, pools, .. } = &*self.local();
        self.local.replace(Rc::new(Local { route: Arc::clone(route), pools: pools.clone(), gate }));
    }

    /// Hands over the lines of the access log.
    fn flush(&self) {
        self.journal.borrow_mut().flush();
    }

    /// Has the backends checked if none is live, and waits a moment for one. True if there is one now. Without any backend
    /// there is nothing to check, and nothing to wait for.
    pub(super) async fn revive(&self) -> bool {
        let route = Arc::clone(&self.local().route);
        if route.is_live() || route.backends.is_empty() || self.waiting.get() >= MOST_WAITING {
            return route.is_live();
        }
        let _waiting = Waiting::new(&self.waiting);
        let revived = self.revived.notified();
        route.check_now();
        timeout(REVIVAL, revived).await.is_ok()
    }

    fn sweep(&self) {
        let (now, keep_alive) = (Instant::now(), self.settings().timeouts.keep_alive);
        for pool in &self.local().pools {
            pool.sweep(now, keep_alive);
        }
    }

    pub(super) fn local(&self) -> Rc<Local> {
        Rc::clone(&self.local.borrow())
    }

    pub(super) fn tls(&self) -> Option<Arc<Server>> {
        self.tls.load_full()
    }

    pub(super) fn settings(&self) -> Settings {
        **self.settings.load()
    }

    /// Connections end as soon as they can.
    pub(super) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    pub(super) fn random(&self, below: usize) -> usize {
        self.with_random(|random| random.usize(..below))
    }

    pub(super) fn with_random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.borrow_mut())
    }
}

impl<'a> Waiting<'a> {
    fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.thread.wakers.borrow_mut().try_remove(self.key);
    }
}
