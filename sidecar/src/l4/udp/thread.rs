//! A listener's share of one thread: its socket, its sessions and its snapshot of the route. Nothing here is shared but the
//! room and the counters, since the kernel gives all datagrams of a client to one thread.
//!
//! A batch comes in -> the datagrams of each client, in their order -> its session, or a new one -> out in as few calls as go
//! ([`requests`]). [`answers`] go the same way back. No datagram waits: what cannot be sent at once is dropped and counted, as the network would.

mod answers;
mod receive;
mod requests;

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    net::UdpSocket,
    sync::{Notify, mpsc, watch},
    task::spawn_local,
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    metrics::{Counters, ThreadCounters},
    room::Room,
    session::{Client, Line, Session},
    settings::Settings,
    table::Table,
};
use crate::{
    balance::Route,
    l4::access::{Access, Facts, Kind},
    net::{Descriptors, Phase},
    telemetry::journal::Journal,
};

/// While the listener is closing, a session ends when it was silent for this time.
const DRAINING_TIMEOUT: Duration = Duration::from_secs(1);

/// What a thread gets from its listener.
pub(super) struct Share {
    pub(super) listener: Arc<str>,
    /// Which of the listener's threads this is.
    pub(super) own: usize,
    pub(super) socket: std::net::UdpSocket,
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) settings: watch::Receiver<Settings>,
    pub(super) access: Arc<ArcSwapOption<Access>>,
    pub(super) counters: Arc<ThreadCounters>,
    pub(super) room: Arc<Room>,
    pub(super) descriptors: Descriptors,
    /// The listener drops its end to cut everything off.
    pub(super) phase: watch::Receiver<Phase>,
    /// Dropped when the last session has ended.
    pub(super) done: mpsc::Sender<()>,
}

pub(super) struct Thread {
    listener: Arc<str>,
    own: usize,
    socket: UdpSocket,
    route: RefCell<Arc<Route<Counters>>>,
    /// Counts the routes.
    routes: Cell<u64>,
    settings: Cell<Settings>,
    /// None where nothing is logged.
    access: Arc<ArcSwapOption<Access>>,
    journal: RefCell<Journal>,
    counters: Arc<ThreadCounters>,
    room: Arc<Room>,
    descriptors: Descriptors,
    sessions: RefCell<Table<Client, Session>>,
    draining: Cell<bool>,
    random: RefCell<fastrand::Rng>,
    /// Told when there is a session again, or a line to be written later.
    awake: Notify,
    /// Whether a session has ended in this batch because the kernel had no socket left.
    relieved: Cell<bool>,
    complained: Cell<Option<Instant>>,
}

impl Thread {
    /// Serves until the listener is dropped, or has drained.
    pub(super) async fn run(mut share: Share) {
        let socket = match UdpSocket::from_std(share.socket) {
            Ok(socket) => socket,
            Err(error) => {
                let listener = &share.listener;
                return tracing::error!(%listener, %error, "a thread cannot serve its share of the listener");
            }
        };
        let thread = Rc::new(Self {
            listener: share.listener,
            own: share.own,
            socket,
            route: RefCell::new(share.route.borrow_and_update().clone()),
            routes: Cell::new(0),
            settings: Cell::new(*share.settings.borrow_and_update()),
            access: share.access,
            journal: RefCell::default(),
            counters: share.counters,
            room: Arc::clone(&share.room),
            descriptors: share.descriptors,
            sessions: RefCell::default(),
            draining: Cell::new(false),
            random: RefCell::new(fastrand::Rng::new()),
            awake: Notify::new(),
            relieved: Cell::new(false),
            complained: Cell::new(None),
        });
        let intake = AbortOnDropHandle::new(spawn_local(requests::take_in(Rc::clone(&thread))));
        let mut following = true;
        while !thread.draining.get() || !thread.sessions.borrow().is_empty() {
            let end = thread.next_end();
            let due = thread.journal.borrow().due();
            tokio::select! {
                biased;
                changed = share.phase.changed() => match changed {
                    Ok(()) => thread.draining.set(*share.phase.borrow_and_update() == Phase::Draining),
                    Err(_) => break,
                },
                changed = share.route.changed(), if following => match changed {
                    Ok(()) => thread.adopt(share.route.borrow_and_update().clone()),
                    Err(_) => following = false,
                },
                Ok(()) = share.settings.changed() => thread.change(*share.settings.borrow_and_update()),
                () = share.room.told(thread.own) => thread.make_room(),
                () = sleep_until(end.unwrap_or_else(Instant::now)), if end.is_some() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => thread.flush(),
                () = thread.awake.notified() => {}
            }
            thread.end_silent(Instant::now());
        }
        intake.abort();
        // However it ends, its part of the socket is given back.
        let _ = intake.await;
        while thread.end_most_silent(Some("CutOff")) {}
        thread.flush();
        thread.publish(None);
        drop(thread);
        drop(share.done);
    }

    fn adopt(&self, route: Arc<Route<Counters>>) {
        *self.route.borrow_mut() = route;
        self.routes.set(self.routes.get() + 1);
    }

    fn change(&self, settings: Settings) {
        self.settings.set(settings);
        self.make_room();
    }

    /// Ends sessions while there are too many, and none of another thread was silent for longer.
    fn make_room(&self) {
        while self.room.must_go(self.own, self.settings.get().most) && self.evict() {}
    }

    fn timeout(&self) -> Duration {
        let timeout = self.settings.get().timeout;
        if self.draining.get() { timeout.min(DRAINING_TIMEOUT) } else { timeout }
    }

    /// When the next session ends, if nothing comes or goes.
    fn next_end(&self) -> Option<Instant> {
        let (_, used) = self.sessions.borrow().most_silent()?;
        used.checked_add(self.timeout())
    }

    fn end_silent(&self, now: Instant) {
        let timeout = self.timeout();
        let silent = || self.sessions.borrow().most_silent();
        while silent().is_some_and(|(_, used)| now.saturating_duration_since(used) >= timeout) {
            self.end_most_silent(None);
        }
        self.publish(None);
    }

    /// False if there is none.
    fn end_most_silent(&self, cause: Option<&str>) -> bool {
        let mut sessions = self.sessions.borrow_mut();
        let ended = sessions.most_silent().and_then(|(place, _)| sessions.remove(place));
        drop(sessions);
        if let Some(session) = &ended {
            self.log(&session.line, cause);
        }
        ended.is_some()
    }

    /// Writes the line of a session that has ended, if it is wanted.
    fn log(&self, line: &Line, cause: Option<&str>) {
        let access = self.access.load();
        let Some(access) =
            access.as_ref().filter(|access| access.wants(cause.is_some(), |below| self.random(below)))
        else {
            return;
        };
        let (tally, backend) = (&line.tally, line.backend());
        let mut journal = self.journal.borrow_mut();
        if journal.due().is_none() {
            self.awake.notify_one();
        }
        access.write(
            &mut journal,
            &Facts {
                kind: Kind::Session,
                listener: &self.listener,
                client: Some(line.client.address),
                host: None,
                received: tally.received.get(),
                sent: tally.sent.get(),
                duration: tally.since.elapsed(),
                connect: None,
                site: Some(&backend.site),
                backend: Some(&backend.shown),
                tries: tally.tries.get(),
                cause,
            },
        );
    }

    /// Hands over the lines that there are.
    fn flush(&self) {
        self.journal.borrow_mut().flush();
    }

    fn random(&self, below: usize) -> usize {
        self.random.borrow_mut().usize(..below)
    }

    fn publish(&self, latest: Option<Instant>) {
        let silent = self.sessions.borrow().most_silent().map(|(_, used)| used);
        self.room.publish(self.own, silent, latest);
    }

    /// Ends the most silent session. False without one.
    fn evict(&self) -> bool {
        let evicted = self.end_most_silent(Some("Evicted"));
        if evicted {
            self.counters.evicted();
            self.publish(None);
        }
        evicted
    }
}
