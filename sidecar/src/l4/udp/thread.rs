//! A listener's share of one thread: its socket, its sessions and its snapshot of the route. Nothing here is shared but the
//! room and the counters, since the kernel gives all datagrams of a client to one thread.
//!
//! A batch comes in -> the datagrams of each client, in their order -> its session, or a new one -> out in as few calls as go.
//! Answers go the same way back. No datagram waits: what cannot be sent at once is dropped and counted, as the network would.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::AsFd,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    io::Interest,
    net::UdpSocket,
    sync::{Notify, mpsc, watch},
    task::{spawn_local, yield_now},
    time::{Instant, sleep_until},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    metrics::{Cause, Counters, ThreadCounters},
    room::{Entry, Room},
    send::{self, Cursor, Piece, Sent, Way},
    session::{self, Client, Line, Session, Tally},
    settings::Settings,
    sockets,
    table::Table,
};
use crate::{
    balance::{Picked, Route, Wish, hash},
    l4::access::{Access, Facts, Kind},
    net::{
        Descriptors, Phase,
        datagrams::{BATCH, Batch, To},
    },
    telemetry::journal::Journal,
};

/// Backends that one batch of a client's datagrams is tried with.
const TRIES: usize = 3;

/// While the listener is closing, a session ends when it was silent for this time.
const DRAINING_TIMEOUT: Duration = Duration::from_secs(1);

/// What a lack of sockets is logged at most once in.
const COMPLAINT: Duration = Duration::from_secs(10);

thread_local! {
    /// One for all sockets of the thread: nothing stays in it between two calls.
    static BUFFERS: RefCell<Option<Batch>> = const { RefCell::new(None) };
}

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
        let intake = AbortOnDropHandle::new(spawn_local(take_in(Rc::clone(&thread))));
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
                backend: Some(&backend.address),
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

    /// Takes one batch from clients. True if there is more.
    fn take_batch(self: &Rc<Self>) -> bool {
        with_buffers(|batch| {
            let full = match receive(&self.socket, Interest::READABLE, batch) {
                Ok(full) => full,
                Err(error) => {
                    tracing::debug!(listener = %self.listener, %error, "receiving from clients failed");
                    return false;
                }
            };
            if batch.is_empty() {
                return false;
            }
            let now = Instant::now();
            self.relieved.set(false);
            let mut clients = [None; BATCH];
            let mut messages = [Piece::default(); BATCH];
            let mut count = 0;
            for message in batch.iter() {
                let piece = Piece::new(message.bytes, message.segment);
                if message.cut {
                    self.counters.dropped(Cause::Truncated, piece.datagrams());
                } else if let Some(address) = message.from {
                    clients[count] = Some(Client { address, own: message.to });
                    messages[count] = piece;
                    count += 1;
                }
            }
            for first in 0..count {
                let Some(client) = clients[first].take() else { continue };
                let mut pieces = [Piece::default(); BATCH];
                pieces[0] = messages[first];
                let mut together = 1;
                for other in first + 1..count {
                    if clients[other] == Some(client) {
                        clients[other] = None;
                        pieces[together] = messages[other];
                        together += 1;
                    }
                }
                self.forward(client, &pieces[..together], now);
            }
            self.publish(Some(now));
            full
        })
    }

    /// Sends a client's datagrams to its backend.
    fn forward(self: &Rc<Self>, client: Client, pieces: &[Piece<'_>], now: Instant) {
        let mut at = Cursor::default();
        for _ in 0..TRIES {
            let line = match self.line(client, now) {
                Ok(line) => line,
                Err(cause) => return self.counters.dropped(cause, send::left(pieces, at)),
            };
            let mut sent = Sent::default();
            let result = send::send(&line.there(), pieces, &mut at, &mut sent);
            line.sent(&sent);
            self.counters.not_sent(&sent);
            match result {
                Ok(()) => return,
                Err(error) => line.broke(&error),
            }
        }
        self.counters.dropped(Cause::Unreachable, send::left(pieces, at));
    }

    /// The line of a client's session: the one that it has, to another backend if it must be, or that of a new session.
    fn line(self: &Rc<Self>, client: Client, now: Instant) -> Result<Rc<Line>, Cause> {
        let mut sessions = self.sessions.borrow_mut();
        let Some(place) = sessions.find(&client) else {
            drop(sessions);
            return if self.draining.get() { Err(Cause::Draining) } else { self.open(client, now) };
        };
        sessions.touch(place, now);
        let Some(session) = sessions.get_mut(place) else { return Err(Cause::NoRoom) };
        if !session.line.is_broken() && self.is_good(&session.line) {
            return Ok(Rc::clone(&session.line));
        }
        match self.connect(client, Some(&session.line)) {
            Ok(Some(line)) => {
                line.place.set(place);
                session.answers = self.bring_answers(&line);
                session.line = Rc::clone(&line);
                Ok(line)
            }
            Ok(None) => {
                session.line.try_again();
                Ok(Rc::clone(&session.line))
            }
            Err(cause) => {
                let session = sessions.remove(place);
                drop(sessions);
                if let Some(session) = session {
                    self.log(&session.line, Some(&cause.to_string()));
                }
                Err(cause)
            }
        }
    }

    /// Whether the backend may go on with what it has; asked once for each route.
    fn is_good(&self, line: &Line) -> bool {
        let routes = self.routes.get();
        let good = line.route.get() == routes || self.route.borrow().keeps(line.backend());
        if good {
            line.route.set(routes);
        }
        good
    }

    fn open(self: &Rc<Self>, client: Client, now: Instant) -> Result<Rc<Line>, Cause> {
        let descriptor = match self.descriptors.take() {
            Some(descriptor) => descriptor,
            None => {
                let more = if self.evict() { self.descriptors.take() } else { None };
                more.ok_or_else(|| self.complain("UDP sessions have all the descriptors that they may have"))?
            }
        };
        let place = match self.room.enter(self.own, self.settings.get().most) {
            Entry::Free(place) => place,
            Entry::Own(place) => {
                self.evict();
                place
            }
            Entry::Full => return Err(Cause::NoRoom),
        };
        let line = match self.connect(client, None) {
            Ok(Some(line)) => line,
            Ok(None) => return Err(Cause::NoBackend),
            Err(cause) => {
                // One session for each batch makes room for the next client.
                if cause == Cause::NoSocket && !self.relieved.replace(true) {
                    self.evict();
                }
                return Err(cause);
            }
        };
        let answers = self.bring_answers(&line);
        let session = Session { line: Rc::clone(&line), answers, _place: place, _descriptor: descriptor };
        let mut sessions = self.sessions.borrow_mut();
        if sessions.is_empty() {
            self.awake.notify_one();
        }
        line.place.set(sessions.insert(client, session, now));
        Ok(line)
    }

    /// A socket to a backend, another one than that of `before` if there is another; none if there is only that.
    fn connect(&self, client: Client, before: Option<&Rc<Line>>) -> Result<Option<Rc<Line>>, Cause> {
        let route = self.route.borrow().clone();
        let wish = wish(&route, client);
        let mut asked: Vec<u64> = before.iter().map(|line| line.backend().id).collect();
        let tally = before.map_or_else(Tally::begin, |line| line.tally.clone());
        for _ in 0..TRIES {
            let index = match route.pick(&wish, |id| asked.contains(&id), |below| self.random(below)) {
                Picked::Backend(index) => index,
                Picked::Full | Picked::None => {
                    let only = before.is_some_and(|line| route.keeps(line.backend()));
                    return if only { Ok(None) } else { Err(Cause::NoBackend) };
                }
            };
            let Some(busy) = route.occupy(index) else { continue };
            let Some(peer) = busy.backend().address.ip() else { return Err(Cause::NoBackend) };
            tally.tried();
            match sockets::connect(peer).and_then(UdpSocket::from_std) {
                Ok(socket) => {
                    return Ok(Some(Line::new(socket, peer, client, busy, self.routes.get(), tally)));
                }
                Err(error) if is_shortage(&error) => return Err(self.complain(&error.to_string())),
                Err(error) => {
                    let (listener, backend) = (&self.listener, &busy.backend().address);
                    tracing::debug!(%listener, %backend, %error, "there is no way to a backend");
                    session::unreachable(busy.backend());
                    asked.push(busy.backend().id);
                }
            }
        }
        Err(Cause::Unreachable)
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

    fn complain(&self, error: &str) -> Cause {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now - last >= COMPLAINT) {
            self.complained.set(Some(now));
            tracing::warn!(listener = %self.listener, error, "no socket for a new session, its datagrams are dropped");
        }
        Cause::NoSocket
    }

    fn bring_answers(self: &Rc<Self>, line: &Rc<Line>) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(spawn_local(bring_answers(Rc::downgrade(self), Rc::clone(line))))
    }

    /// Takes one batch of answers back to the client. True if there is more.
    fn answer_batch(&self, line: &Line, interest: Interest) -> bool {
        with_buffers(|batch| {
            let full = match receive(&line.socket, interest, batch) {
                Ok(full) => full,
                Err(error) => {
                    line.broke(&error);
                    return false;
                }
            };
            let mut pieces = [Piece::default(); BATCH];
            let mut count = 0;
            for message in batch.iter() {
                let piece = Piece::new(message.bytes, message.segment);
                if !line.is_peer(message.from) {
                    self.counters.dropped(Cause::Stranger, piece.datagrams());
                } else if message.cut {
                    self.counters.dropped(Cause::Truncated, piece.datagrams());
                } else {
                    pieces[count] = piece;
                    count += 1;
                }
            }
            let pieces = &pieces[..count];
            if !pieces.is_empty() {
                self.answer(line, pieces);
            }
            full
        })
    }

    fn answer(&self, line: &Line, pieces: &[Piece<'_>]) {
        let datagrams = pieces.iter().map(Piece::datagrams).sum();
        line.answered(datagrams, pieces.iter().map(Piece::bytes).sum());
        let to = To { address: Some(line.client.address), from: line.client.own };
        let way = Way { socket: self.socket.as_fd(), to, segments: &line.segments_back };
        let (mut at, mut sent) = (Cursor::default(), Sent::default());
        if let Err(error) = send::send(&way, pieces, &mut at, &mut sent) {
            tracing::debug!(listener = %self.listener, client = %line.client.address, %error, "a client cannot be reached");
            self.counters.dropped(Cause::Unreachable, send::left(pieces, at));
        }
        self.counters.not_sent(&sent);
        let now = Instant::now();
        self.sessions.borrow_mut().touch(line.place.get(), now);
        self.publish(Some(now));
    }
}

fn wish(route: &Route<Counters>, client: Client) -> Wish {
    let source = route.hashes_source().then(|| client.address.ip().to_canonical());
    Wish { hash: source.map(|ip| hash(ip.to_string().as_bytes())) }
}

/// Takes datagrams in for as long as the listener serves.
async fn take_in(thread: Rc<Thread>) {
    while thread.socket.readable().await.is_ok() {
        if thread.take_batch() {
            // Answers, and other listeners, have their turn.
            yield_now().await;
        }
    }
}

async fn bring_answers(thread: Weak<Thread>, line: Rc<Line>) {
    while let Ok(ready) = line.socket.ready(Interest::READABLE | Interest::ERROR).await {
        let Some(thread) = thread.upgrade() else { return };
        // One at a time: what is not ready any more is told for one alone.
        let interest = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
        let more = thread.answer_batch(&line, interest);
        drop(thread);
        if more {
            yield_now().await;
        }
    }
}

fn with_buffers<R>(work: impl FnOnce(&mut Batch) -> R) -> R {
    BUFFERS.with_borrow_mut(|buffers| work(buffers.get_or_insert_with(Batch::new)))
}

/// Takes in what is there. True if there may be more: with less than a full batch the socket was read to its end, and the
/// next datagram makes it ready again.
fn receive(socket: &UdpSocket, interest: Interest, batch: &mut Batch) -> io::Result<bool> {
    batch.clear();
    let mut taken = 0;
    let result = socket.try_io(interest, || {
        taken = batch.receive(socket)?;
        if taken < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the process or the kernel has run out of sockets, or of ports for them.
fn is_shortage(error: &io::Error) -> bool {
    let shortage = [
        libc::EMFILE,
        libc::ENFILE,
        libc::ENOMEM,
        libc::ENOBUFS,
        libc::EAGAIN,
        libc::EADDRINUSE,
        libc::ENOSPC,
    ];
    error.raw_os_error().is_some_and(|code| shortage.contains(&code))
}
