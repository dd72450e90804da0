//! One client's way to one backend: a socket that is connected there, so that the kernel keeps strangers out.

use std::{
    cell::Cell,
    io,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{net::UdpSocket, time::Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    metrics::Counters,
    room::Place,
    send::{Sent, Way},
};
use crate::{
    balance::{Backend, Busy, Outcome},
    net::{Descriptor, datagrams::To},
};

/// Who a session is for: a client, and which of the own addresses it writes to, which is where answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Client {
    pub(super) address: SocketAddr,
    /// None where the listener has one address only.
    pub(super) own: Option<IpAddr>,
}

/// A session in the table. Dropping it ends it.
pub(super) struct Session {
    pub(super) line: Rc<Line>,
    /// Brings the answers back.
    pub(super) answers: AbortOnDropHandle<()>,
    pub(super) _place: Place,
    pub(super) _descriptor: Descriptor,
}

/// What a session has come to so far, at all the backends that it had.
#[derive(Debug, Clone)]
pub(super) struct Tally {
    pub(super) since: Instant,
    /// Backends that were asked.
    pub(super) tries: Cell<u32>,
    /// Bytes of the client that went to a backend.
    pub(super) received: Cell<u64>,
    /// Bytes of backends.
    pub(super) sent: Cell<u64>,
}

impl Tally {
    pub(super) fn begin() -> Self {
        Self { since: Instant::now(), tries: Cell::new(0), received: Cell::new(0), sent: Cell::new(0) }
    }

    pub(super) fn tried(&self) {
        self.tries.set(self.tries.get() + 1);
    }
}

/// A socket to a backend.
pub(super) struct Line {
    pub(super) socket: UdpSocket,
    pub(super) client: Client,
    pub(super) tally: Tally,
    peer: SocketAddr,
    busy: Busy<Counters>,
    /// The backend has refused, and not answered since.
    broken: Cell<bool>,
    /// The route by which the backend was last found good.
    pub(super) route: Cell<u64>,
    /// Place in the table.
    pub(super) place: Cell<usize>,
    segments_there: Cell<bool>,
    pub(super) segments_back: Cell<bool>,
}

impl Line {
    pub(super) fn new(
        socket: UdpSocket,
        peer: SocketAddr,
        client: Client,
        busy: Busy<Counters>,
        route: u64,
        tally: Tally,
    ) -> Rc<Self> {
        busy.backend().detail.opened();
        Rc::new(Self {
            socket,
            client,
            tally,
            peer,
            busy,
            broken: Cell::new(false),
            route: Cell::new(route),
            place: Cell::new(usize::MAX),
            segments_there: Cell::new(true),
            segments_back: Cell::new(true),
        })
    }

    pub(super) fn backend(&self) -> &Arc<Backend<Counters>> {
        self.busy.backend()
    }

    /// The way to the backend.
    pub(super) fn there(&self) -> Way<'_> {
        let to = To { address: None, from: None };
        Way { socket: self.socket.as_fd(), to, segments: &self.segments_there }
    }

    /// Whether a datagram comes from the backend. Before the socket was connected, anybody might have sent one.
    pub(super) fn is_peer(&self, from: Option<SocketAddr>) -> bool {
        from.is_some_and(|from| (from.ip(), from.port()) == (self.peer.ip(), self.peer.port()))
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken.get()
    }

    /// The backend cannot be reached, or nobody listens there: the next datagram shall go elsewhere.
    pub(super) fn broke(&self, error: &io::Error) {
        tracing::debug!(backend = %self.peer, client = %self.client.address, %error, "a backend cannot be reached");
        self.broken.set(true);
        unreachable(self.backend());
    }

    /// This went to the backend.
    pub(super) fn sent(&self, sent: &Sent) {
        self.backend().detail.sent(sent);
        self.tally.received.set(self.tally.received.get() + sent.bytes);
    }

    /// The backend has answered.
    pub(super) fn answered(&self, datagrams: u64, bytes: u64) {
        self.broken.set(false);
        let backend = self.backend();
        backend.detail.received(datagrams, bytes);
        self.tally.sent.set(self.tally.sent.get() + bytes);
        backend.observe(Outcome::Good, Duration::ZERO);
    }

    /// The backend is used again although it has refused: there is no other.
    pub(super) fn try_again(&self) {
        self.broken.set(false);
    }
}

/// Counts that a backend could not be reached.
pub(super) fn unreachable(backend: &Backend<Counters>) {
    backend.detail.refused();
    // It does not become suspect: there may be no checks to clear that.
    backend.observe(Outcome::Broken, Duration::ZERO);
}
