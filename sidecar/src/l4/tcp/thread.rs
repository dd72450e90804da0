//! A listener's share of one thread: its snapshot of the route, and its connections.

use std::{
    cell::{Cell, RefCell},
    pin::pin,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use arc_swap::ArcSwap;
use slab::Slab;
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    cancel::CancelKeys,
    client,
    going::Going,
    queue::Queue,
    rebalance::{self, Order},
    routes::{Way, Ways},
    settings::Settings,
};
use crate::{
    balance::{Backend, Route},
    l4::{
        access::{Access, Facts},
        metrics::{Cause, Counters, ThreadCounters},
    },
    net::Lane,
    telemetry::journal::Journal,
};

/// A client that finds no live backend waits this long for one to come back.
const REVIVAL: Duration = Duration::from_secs(1);

/// While connections come, a timer goes off this often: to set one that is due later does not wake the thread anew, and each
/// connection sets some.
const PULSE: Duration = Duration::from_millis(200);

/// Clients that wait for that on one thread; others are told at once.
const MOST_WAITING: usize = 256;

/// What a thread gets from its listener.
pub(super) struct Share {
    pub(super) listener: Arc<str>,
    pub(super) lane: Lane,
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) counters: Arc<ThreadCounters>,
    pub(super) queue: Arc<Queue>,
    pub(super) keys: Arc<CancelKeys>,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) ways: watch::Receiver<Arc<Ways>>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
}

/// What the connections of one listener share on one thread.
pub(super) struct Thread {
    pub(super) listener: Arc<str>,
    pub(super) counters: Arc<ThreadCounters>,
    pub(super) queue: Arc<Queue>,
    pub(super) keys: Arc<CancelKeys>,
    route: RefCell<Arc<Route<Counters>>>,
    random: RefCell<fastrand::Rng>,
    journal: RefCell<Journal>,
    settings: Arc<ArcSwap<Settings>>,
    /// Told of each route with a live backend.
    revived: Notify,
    waiting: Cell<usize>,
    /// The connections, to be told when they shall end.
    going: RefCell<Slab<Rc<Going>>>,
    routed: RefCell<Routed>,
}

/// The thread's shares of the routes, each with backends and connections of its own.
#[derive(Default)]
struct Routed {
    ways: Arc<Ways>,
    /// By the indexes of the ways.
    threads: Vec<Rc<Thread>>,
}

/// A connection in the thread's list, until this is dropped.
pub(super) struct Registered<'a> {
    thread: &'a Thread,
    key: usize,
    going: Rc<Going>,
}

/// A connection in the thread's count, from its first byte to its last.
pub(super) struct Present {
    counters: Arc<ThreadCounters>,
    since: Instant,
}

impl Thread {
    /// Serves the connections that arrive in the lane until it ends, or until the listener is dropped.
    pub(super) async fn run(mut share: Share) {
        let thread = Rc::new(Self {
            listener: share.listener,
            counters: share.counters,
            queue: share.queue,
            keys: share.keys,
            route: RefCell::new(Arc::new(Route::empty())),
            random: RefCell::new(fastrand::Rng::new()),
            journal: RefCell::default(),
            settings: share.settings,
            revived: Notify::new(),
            waiting: Cell::new(0),
            going: RefCell::default(),
            routed: RefCell::default(),
        });
        thread.adopt(share.route.borrow_and_update().clone());
        let (mut connections, mut followers) = (JoinSet::new(), JoinSet::new());
        thread.follow(share.ways.borrow_and_update().clone(), &mut followers);
        let (mut accepting, mut following) = (true, true);
        let mut pulse = pin!(sleep(PULSE));
        let (mut beats, mut came) = (true, false);
        while accepting || !connections.is_empty() {
            // What ends, and so writes a line, is also joined below.
            let due = thread.journal.borrow().due();
            tokio::select! {
                biased;
                changed = share.route.changed(), if following => match changed {
                    Ok(()) => thread.adopt(share.route.borrow_and_update().clone()),
                    Err(_) => following = false,
                },
                Ok(()) = share.ways.changed() => {
                    thread.follow(share.ways.borrow_and_update().clone(), &mut followers);
                }
                Some(_) = followers.join_next() => {}
                changed = share.lane.phase.changed() => {
                    // A drain waits for clients and backends: only they know when they have done.
                    if changed.is_err() {
                        break;
                    }
                }
                Some(order) = share.orders.recv() => thread.obey(order),
                accepted = share.lane.queue.recv(), if accepting => match accepted {
                    Some(accepted) => {
                        came = true;
                        if !beats {
                            beats = true;
                            pulse.as_mut().reset(Instant::now() + PULSE);
                        }
                        connections.spawn_local(client::serve(Rc::clone(&thread), accepted));
                    }
                    None => accepting = false,
                },
                () = &mut pulse, if beats => {
                    beats = std::mem::take(&mut came);
                    pulse.as_mut().reset(Instant::now() + PULSE);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => thread.flush(),
                Some(_) = connections.join_next() => {}
            }
        }
        connections.shutdown().await;
        thread.flush();
        drop(share.lane.done);
    }

    /// Takes over new routes by server name; those that are the same go on.
    fn follow(&self, ways: Arc<Ways>, followers: &mut JoinSet<()>) {
        let before = self.routed.take();
        let share = |way: &Way| {
            let same = before.threads.iter().find(|thread| Arc::ptr_eq(&thread.queue, &way.queue));
            same.cloned().unwrap_or_else(|| {
                let (thread, mut route) = (Rc::new(self.sharing(way)), way.route.clone());
                let following = Rc::clone(&thread);
                following.adopt(route.borrow_and_update().clone());
                followers.spawn_local(async move {
                    while route.changed().await.is_ok() {
                        let route = route.borrow_and_update().clone();
                        following.adopt(route);
                    }
                });
                thread
            })
        };
        let threads = ways.all.iter().map(share).collect();
        self.routed.replace(Routed { ways, threads });
    }

    /// A share of a route, that has all but backends in common with this.
    fn sharing(&self, way: &Way) -> Self {
        Self {
            listener: Arc::clone(&self.listener),
            counters: Arc::clone(&self.counters),
            queue: Arc::clone(&way.queue),
            keys: Arc::clone(&self.keys),
            route: RefCell::new(Arc::new(Route::empty())),
            random: RefCell::new(fastrand::Rng::new()),
            journal: RefCell::default(),
            settings: Arc::clone(&self.settings),
            revived: Notify::new(),
            waiting: Cell::new(0),
            going: RefCell::default(),
            routed: RefCell::default(),
        }
    }

    /// The share that serves clients who ask for this name. None if no route is for it, and there are no other backends.
    pub(super) fn of_name(self: &Rc<Self>, name: Option<&str>) -> Option<Rc<Self>> {
        let routed = self.routed.borrow();
        let found = name.and_then(|name| routed.ways.names.find(name));
        match found.and_then(|index| routed.threads.get(index)) {
            Some(thread) => Some(Rc::clone(thread)),
            None => (routed.threads.is_empty() || routed.ways.has_rest).then(|| Rc::clone(self)),
        }
    }

    /// Takes over a new route. Connections to backends that have gone stay for as long as both sides want them to.
    fn adopt(&self, route: Arc<Route<Counters>>) {
        if self.settings.load().closes_down {
            let down = |id: u64| {
                let backend = route.backends.iter().find(|backend| backend.id == id);
                backend.is_some_and(|backend| !backend.condition().is_usable())
            };
            for (_, going) in self.going.borrow().iter().filter(|(_, going)| down(going.backend)) {
                going.end(Cause::BackendDown);
            }
        }
        let live = route.is_live();
        *self.route.borrow_mut() = route;
        if live {
            self.revived.notify_waiters();
        }
        self.queue.changed();
    }

    /// Has the backends checked, and waits a moment for one that is live. Without any backend there is nothing to check, and
    /// nothing to wait for.
    pub(super) async fn revive(&self) -> bool {
        let route = self.route();
        if route.backends.is_empty() || self.waiting.get() >= MOST_WAITING {
            return false;
        }
        self.waiting.set(self.waiting.get() + 1);
        let revived = self.revived.notified();
        route.check_now();
        let live = timeout(REVIVAL, revived).await.is_ok();
        self.waiting.set(self.waiting.get() - 1);
        live
    }

    /// Whether a client that comes now need not wait for a backend.
    pub(super) fn has_room(&self) -> bool {
        self.queue.waiting() == 0 && self.route().has_another(|_| false)
    }

    /// Counts a client that got no backend.
    pub(super) fn refuse(&self, cause: Cause) {
        self.counters.failed(cause);
        let (listener, reason) = (&self.listener, self.route());
        let reason = reason.unavailable.trim_end();
        let cause = cause.name();
        tracing::debug!(%listener, cause, reason, "a client got no backend");
    }

    pub(super) fn enter(&self) -> Present {
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Present { counters: Arc::clone(&self.counters), since: Instant::now() }
    }

    /// Does what the rebalancer asks for.
    fn obey(&self, order: Order) {
        let going = self.going.borrow();
        match order {
            Order::Survey { from, quiet, reply } => {
                // Who asked may have stopped waiting.
                let _ = reply.send(rebalance::survey(
                    going.iter().map(|(key, going)| (key, &**going)),
                    &from,
                    quiet,
                ));
            }
            Order::Close { keys, quiet } => {
                let now = Instant::now();
                let quiet = |key: &usize| going.get(*key).filter(|going| going.is_quiet(now, quiet));
                keys.iter().filter_map(quiet).for_each(|going| going.end(Cause::Rebalanced));
            }
        }
    }

    /// For as long as the result lives, the connection can be told to end.
    pub(super) fn register(&self, backend: &Backend<Counters>) -> Registered<'_> {
        let going = Rc::new(Going::at(backend.id));
        let key = self.going.borrow_mut().insert(Rc::clone(&going));
        Registered { thread: self, key, going }
    }

    pub(super) fn route(&self) -> Arc<Route<Counters>> {
        Arc::clone(&self.route.borrow())
    }

    /// Writes the line of a connection.
    pub(super) fn log(&self, access: &Access, facts: &Facts<'_>) {
        access.write(&mut self.journal.borrow_mut(), facts);
    }

    /// Hands over the lines that there are.
    fn flush(&self) {
        self.journal.borrow_mut().flush();
    }

    pub(super) fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    pub(super) fn random(&self, below: usize) -> usize {
        self.random.borrow_mut().usize(..below)
    }
}

impl Registered<'_> {
    pub(super) fn shared(&self) -> Rc<Going> {
        Rc::clone(&self.going)
    }

    /// Something has moved.
    pub(super) fn used(&self, now: Instant) {
        self.going.used.set(now);
    }

    /// Whether a side takes nothing more in.
    pub(super) fn full(&self, full: bool) {
        self.going.full.set(full);
    }

    /// Whether the client waits for an answer, as far as one can tell who does not know what is spoken.
    pub(super) fn waits(&self, waits: bool) {
        self.going.waits.set(waits);
    }
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.thread.going.borrow_mut().try_remove(self.key);
    }
}

impl Drop for Present {
    fn drop(&mut self) {
        self.counters.connections.fetch_sub(1, Ordering::Relaxed);
        self.counters.durations.observe(self.since.elapsed());
    }
}
