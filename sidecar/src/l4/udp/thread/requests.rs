//! From clients to the backends of their sessions, which begin here.

use std::{io, rc::Rc, time::Duration};

use tokio::{io::Interest, net::UdpSocket, task::yield_now, time::Instant};

use super::{
    Thread,
    receive::{receive, with_buffers},
};
use crate::{
    balance::{Picked, Route, Wish, hash},
    l4::udp::{
        metrics::{Cause, Counters},
        room::Entry,
        send::{self, Cursor, Piece, Sent},
        session::{self, Client, Line, Session, Tally},
        sockets,
    },
    net::datagrams::BATCH,
};

/// Backends that one batch of a client's datagrams is tried with.
const TRIES: usize = 3;

/// What a lack of sockets is logged at most once in.
const COMPLAINT: Duration = Duration::from_secs(10);

impl Thread {
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

    fn complain(&self, error: &str) -> Cause {
        let now = Instant::now();
        if self.complained.get().is_none_or(|last| now - last >= COMPLAINT) {
            self.complained.set(Some(now));
            tracing::warn!(listener = %self.listener, error, "no socket for a new session, its datagrams are dropped");
        }
        Cause::NoSocket
    }
}

/// Takes datagrams in for as long as the listener serves.
pub(super) async fn take_in(thread: Rc<Thread>) {
    while thread.socket.readable().await.is_ok() {
        if thread.take_batch() {
            // Answers, and other listeners, have their turn.
            yield_now().await;
        }
    }
}

fn wish(route: &Route<Counters>, client: Client) -> Wish {
    let source = route.hashes_source().then(|| client.address.ip().to_canonical());
    Wish { hash: source.map(|ip| hash(ip.to_string().as_bytes())) }
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
