//! Connections to one backend, of one thread: last in, first out, so that few stay warm and the others time out. Those in HTTP/2
//! are shared, and what is taken of them is a stream.

use std::{
    cell::{Cell, RefCell},
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crds::config::Protocol;
use futures::FutureExt;
use tokio::time::timeout;

use super::{
    h1::Wire,
    h2::{Links, Met, NotMet, Outbound},
    metrics::Counters,
    transport::Transport,
};
use crate::{
    balance::{Backend, Open, Outcome},
    net::{self, DeadHosts, Spoken, Stream},
};

/// Idle connections kept for one backend by one thread.
const MOST: usize = 256;

/// Connections in HTTP/2 that one request waits for: others may have taken all streams of one as soon as it is there.
const MOST_MEETINGS: usize = MOST;

/// A backend as one thread sees it.
pub(super) struct Pool {
    pub(super) backend: Arc<Backend<Counters>>,
    idle: RefCell<Vec<Idle>>,
    links: Links<Open<Counters>>,
    /// Asked for what it prefers, it chose HTTP/1.1.
    plain: Cell<bool>,
    /// The backend has left the sets: nothing is kept for it.
    closed: Cell<bool>,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

/// A connection to a backend; dropping it closes it at once.
pub(super) struct Connection {
    pub(super) wire: Wire,
    /// It has served a request before, so that the backend may be closing it just now.
    pub(super) reused: bool,
    /// None for a stream, whose connection stays open without it.
    open: Option<Open<Counters>>,
}

/// Why there is no connection.
pub(super) enum NoConnection {
    /// The backend has as many as its limits allow.
    Full,
    Failed(io::Error),
}

impl Pool {
    pub(super) fn new(backend: Arc<Backend<Counters>>) -> Self {
        Self {
            backend,
            idle: RefCell::default(),
            links: Links::default(),
            plain: Cell::new(false),
            closed: Cell::new(false),
        }
    }

    /// The connection used last that is good for another request.
    pub(super) fn take(&self, now: Instant, keep_alive: Duration) -> Option<Connection> {
        if let Some((stream, reused)) = self.links.take(now, keep_alive) {
            return Some(Connection::of_link(stream, reused));
        }
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            if last.is_good(now, keep_alive) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Opens a connection, and tells everyone if the backend cannot be reached. `upgrade`: for a protocol that HTTP/1.1 alone
    /// can change to.
    pub(super) async fn connect(
        self: &Rc<Self>,
        upgrade: bool,
        limit: Duration,
    ) -> Result<Connection, NoConnection> {
        let protocol = match self.backend.protocol.unwrap_or_default() {
            Protocol::Auto if upgrade || self.backend.tls.is_none() => Protocol::Http1,
            protocol => protocol,
        };
        if protocol == Protocol::Http1 {
            let (stream, _, open) = self.open(protocol, limit).await?;
            return Ok(Connection::new(stream, open));
        }
        for _ in 0..MOST_MEETINGS {
            if let Some((stream, reused)) = self.links.take(Instant::now(), Duration::MAX) {
                return Ok(Connection::of_link(stream, reused));
            }
            let meet = || Rc::clone(self).meet(protocol, limit);
            // Of a connection in HTTP/1.1 each needs its own.
            let met = if self.plain.get() {
                meet().await
            } else {
                self.links.meeting(|| meet().boxed_local()).await
            };
            match &*met? {
                Met::Link(link) => {
                    if let Some(stream) = link.stream() {
                        return Ok(Connection::of_link(stream, false));
                    }
                }
                Met::Alone(place) => {
                    if let Some((stream, open)) = place.take() {
                        return Ok(Connection::new(stream, open));
                    }
                }
            }
        }
        Err(NoConnection::Failed(io::Error::other("its connections have no room for another stream")))
    }

    /// Opens a connection that others may wait for too.
    async fn meet(
        self: Rc<Self>,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<Rc<Met<Open<Counters>>>, NotMet> {
        let (stream, spoken, open) = self.open(protocol, limit).await?;
        self.plain.set(spoken == Spoken::Http1);
        if spoken == Spoken::Http1 {
            return Ok(Met::alone(stream, open));
        }
        let started = Instant::now();
        let begun = timeout(limit, self.links.begin(stream, open)).await;
        let late = || io::Error::new(io::ErrorKind::TimedOut, "it says nothing in HTTP/2");
        let link = begun.unwrap_or_else(|_| Err(late()));
        Ok(Rc::new(Met::Link(link.map_err(|error| self.failed(error, started))?)))
    }

    async fn open(
        &self,
        protocol: Protocol,
        limit: Duration,
    ) -> Result<(Stream, Spoken, Open<Counters>), NoConnection> {
        let connecting = self.backend.connect().ok_or(NoConnection::Full)?;
        let started = Instant::now();
        let offered = net::offered(Some(protocol));
        let connected = net::connect(self.backend.target(), offered, &[], limit).await;
        let opened = connected.and_then(|stream| {
            stream.socket().ask_for_host(&DeadHosts::default())?;
            let spoken = net::spoken(&stream, protocol)?;
            Ok((stream, spoken))
        });
        let (stream, spoken) = opened.map_err(|error| self.failed(error, started))?;
        Ok((stream, spoken, connecting.established()))
    }

    fn failed(&self, error: io::Error, started: Instant) -> NoConnection {
        self.backend.detail.connect_failures.fetch_add(1, Ordering::Relaxed);
        if is_of_backend(&error) {
            self.backend.observe(Outcome::ConnectFailed, started.elapsed());
        }
        NoConnection::Failed(error)
    }

    /// Keeps the connection for the next request. One that was sent more than its answer is not to be trusted.
    pub(super) fn put(&self, mut connection: Connection, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        let may_stay = !self.closed.get() && idle.len() < MOST && connection.open.is_some();
        if may_stay && connection.wire.input().is_empty() {
            connection.reused = true;
            idle.push(Idle { connection, since: now });
        }
    }

    /// Drops what has been idle for too long.
    pub(super) fn sweep(&self, now: Instant, keep_alive: Duration) {
        self.idle.borrow_mut().retain_mut(|idle| idle.is_good(now, keep_alive));
        self.links.sweep(now, keep_alive);
    }

    /// Closes idle connections now and the others once they have served.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
        self.links.close();
    }
}

impl Connection {
    fn new(stream: Stream, open: Open<Counters>) -> Self {
        Self { wire: Wire::new(stream.into()), reused: false, open: Some(open) }
    }

    /// A stream. `reused`: its connection has served before.
    fn of_link(stream: Outbound, reused: bool) -> Self {
        Self { wire: Wire::new(Transport::Outbound(Box::new(stream))), reused, open: None }
    }
}

impl From<NotMet> for NoConnection {
    fn from(not_met: NotMet) -> Self {
        match not_met {
            NotMet::Full => Self::Full,
            NotMet::Failed(kind, cause) => Self::Failed(io::Error::new(kind, &*cause)),
        }
    }
}

impl From<NoConnection> for NotMet {
    fn from(error: NoConnection) -> Self {
        match error {
            NoConnection::Full => Self::Full,
            NoConnection::Failed(error) => Self::Failed(error.kind(), error.to_string().into()),
        }
    }
}

impl Idle {
    fn is_good(&mut self, now: Instant, keep_alive: Duration) -> bool {
        now.saturating_duration_since(self.since) < keep_alive && self.connection.wire.is_quiet()
    }
}

/// Whether the error is about the backend, and not about this process, which may have run out of descriptors or ports.
fn is_of_backend(error: &io::Error) -> bool {
    use io::ErrorKind::{
        ConnectionRefused, ConnectionReset, HostUnreachable, InvalidData, NetworkUnreachable, NotFound,
        TimedOut, UnexpectedEof,
    };
    // A Unix socket that is not there is NotFound; a handshake that fails is InvalidData or UnexpectedEof.
    matches!(
        error.kind(),
        ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | InvalidData
            | NetworkUnreachable
            | NotFound
            | TimedOut
            | UnexpectedEof
    )
}
