//! Connections to one backend, of one thread: last in, first out, so that few stay warm and the others time out.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{ALPN, h1::Wire, metrics::Counters};
use crate::{
    balance::{Backend, Open, Outcome},
    net,
};

/// Idle connections kept for one backend by one thread.
const MOST: usize = 256;

/// A backend as one thread sees it.
pub(super) struct Pool {
    pub(super) backend: Arc<Backend<Counters>>,
    idle: RefCell<Vec<Idle>>,
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
    _open: Open<Counters>,
}

/// Why there is no connection.
pub(super) enum NoConnection {
    /// The backend has as many as its limits allow.
    Full,
    Failed(io::Error),
}

impl Pool {
    pub(super) fn new(backend: Arc<Backend<Counters>>) -> Self {
        Self { backend, idle: RefCell::default(), closed: Cell::new(false) }
    }

    /// The connection used last that is good for another request.
    pub(super) fn take(&self, now: Instant, keep_alive: Duration) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut last) = idle.pop() {
            if last.is_good(now, keep_alive) {
                return Some(last.connection);
            }
        }
        None
    }

    /// Opens a connection, and tells everyone if the backend cannot be reached.
    pub(super) async fn connect(&self, limit: Duration) -> Result<Connection, NoConnection> {
        let connecting = self.backend.connect().ok_or(NoConnection::Full)?;
        let started = Instant::now();
        let opened = net::connect(&self.backend.address, self.backend.tls.as_ref(), ALPN, limit).await;
        let opened = opened.map_err(|error| {
            self.backend.detail.connect_failures.fetch_add(1, Ordering::Relaxed);
            if is_of_backend(&error) {
                self.backend.observe(Outcome::ConnectFailed, started.elapsed());
            }
            NoConnection::Failed(error)
        });
        let wire = Wire::new(opened?);
        Ok(Connection { wire, reused: false, _open: connecting.established() })
    }

    /// Keeps the connection for the next request. One that was sent more than its answer is not to be trusted.
    pub(super) fn put(&self, mut connection: Connection, now: Instant) {
        let mut idle = self.idle.borrow_mut();
        if !self.closed.get() && idle.len() < MOST && connection.wire.input().is_empty() {
            connection.reused = true;
            idle.push(Idle { connection, since: now });
        }
    }

    /// Drops what has been idle for too long.
    pub(super) fn sweep(&self, now: Instant, keep_alive: Duration) {
        self.idle.borrow_mut().retain_mut(|idle| idle.is_good(now, keep_alive));
    }

    /// Closes idle connections now and the others once they have served.
    pub(super) fn close(&self) {
        self.closed.set(true);
        self.idle.borrow_mut().clear();
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
