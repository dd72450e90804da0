//! A client and a backend that are connected: a flow each way, until both have ended or one of them breaks.

use std::{
    future::poll_fn,
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::time::Instant;

use super::{
    cancel::Learner,
    connect::Met,
    entry::Entry,
    flow::{Flow, FlowError},
    postgres::Said,
    settings::Settings,
    silence::{Silence, Silent},
    thread::{Registered, Thread},
};
use crate::{
    balance::{Busy, Outcome},
    l4::metrics::{Cause, Counters},
    net::{DeadHosts, Socket, Stream},
};

/// What a client and a backend have said to each other before bytes just move.
pub(super) enum Begun {
    /// This, which the backend is yet to hear.
    By(Said),
    /// The client has asked for TLS, and this is the backend's answer, which the client is yet to hear. What follows is theirs.
    Agreed(u8),
}

pub(super) struct Session<'a> {
    thread: &'a Thread,
    entry: &'a Entry<'a>,
    client: Stream,
    server: Stream,
    up: Flow,
    down: Flow,
    /// What the client said before there was a backend, for as long as another one may come to hear it.
    said: Option<Said>,
    up_ended: bool,
    down_ended: bool,
    silence: Silence,
    dead_hosts: DeadHosts,
    since: Instant,
    going: Registered<'a>,
    /// It may be closed for a backend that joins.
    moves: bool,
    /// For so long a backend may leave without a byte, and another one is asked.
    early: Duration,
    busy: Busy<Counters>,
    /// Bytes that both had said before, counted at the backend that was there then.
    exchanged: (u64, u64),
    /// Bytes that were counted at the backend.
    counted: (u64, u64),
}

/// How a session ends that does not end as both sides wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The backend has left before anybody said a word.
    Early,
    For(Cause),
}

impl<'a> Session<'a> {
    pub(super) fn new(
        thread: &'a Thread,
        entry: &'a Entry<'a>,
        settings: &Settings,
        client: Stream,
        begun: Begun,
        exchanged: (u64, u64),
        met: Met<'a>,
    ) -> Self {
        let Met { stream: server, busy, going, .. } = met;
        let (said, answer) = match begun {
            Begun::By(said) => (said, None),
            Begun::Agreed(answer) => (Said { once: true, ..Said::default() }, Some(answer)),
        };
        let opened = settings.postgres.is_some() && answer.is_none();
        let learner = opened.then(|| Learner::new(&thread.keys, busy.backend()));
        let offers_channel = opened && server.is_tls() && !client.is_tls();
        let begin = |bytes: &[u8]| if bytes.is_empty() { Flow::new() } else { Flow::begun(bytes) };
        Self {
            thread,
            entry,
            client,
            server,
            up: begin(&said.bytes),
            down: begin(answer.as_slice()).not_empty().seen_by(learner).shortens_offer(offers_channel),
            said: (!said.once).then_some(said),
            up_ended: false,
            down_ended: false,
            silence: Silence::new(settings.idle, settings.dead_hosts.after),
            dead_hosts: settings.dead_hosts,
            since: Instant::now(),
            going,
            moves: settings.rebalance.is_some(),
            early: settings.connect,
            busy,
            exchanged,
            counted: (0, 0),
        }
    }

    /// Moves bytes until both sides have ended. It is borrowed, since a future holds what it is given twice.
    pub(super) async fn run(&mut self) -> Result<(), End> {
        let going = self.going.shared();
        loop {
            tokio::select! {
                biased;
                ended = poll_fn(|context| self.poll(context)) => return ended,
                cause = going.told() => {
                    let full = self.is_full();
                    if cause != Cause::Rebalanced || !(full || going.has_gone_on()) {
                        return Err(End::For(cause));
                    }
                    self.going.full(full);
                }
            }
        }
    }

    /// Closes both sides. Gives the client and its words back if the backend has left it before anybody said more.
    pub(super) fn end(mut self, ended: Result<(), End>) -> Option<(Stream, Said)> {
        let backend = Arc::clone(self.busy.backend());
        self.count();
        if self.down.moved() > 0 {
            backend.observe(Outcome::Good, Duration::ZERO);
        } else if matches!(ended, Err(End::Early | End::For(Cause::BackendBroke))) {
            backend.observe(Outcome::Broken, Duration::ZERO);
        }
        let Self { thread, entry, client, server, said, busy, going, .. } = self;
        drop(going);
        let kept = match ended {
            Ok(()) => {
                entry.ends(None);
                None
            }
            Err(End::Early) => said.map(|said| (client, said)),
            Err(End::For(cause)) => {
                entry.ends(Some(cause));
                thread.counters.failed(cause);
                // Each side learns that this is not the end of the bytes, unless all that there were have come through.
                if cause != Cause::Rebalanced {
                    reset(&client);
                    reset(&server);
                }
                None
            }
        };
        drop(busy);
        thread.queue.freed();
        kept
    }

    /// Ready when both sides have ended, or one has broken.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), End>> {
        if self.down_ended {
            self.up.is_last();
        }
        if !self.up_ended {
            match self.up.poll(context, &mut self.client, &mut self.server) {
                Poll::Ready(Ok(())) => self.up_ended = true,
                // A backend that has left does not take what another one can hear.
                Poll::Ready(Err(FlowError::Sink(_))) if self.is_early() => {
                    return Poll::Ready(Err(End::Early));
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(self.broken(&error, Cause::ClientBroke, Cause::BackendBroke)));
                }
                Poll::Pending => {}
            }
        }
        if self.up_ended {
            self.down.is_last();
        }
        while !self.down_ended {
            match self.down.poll(context, &mut self.server, &mut self.client) {
                Poll::Ready(Ok(())) => self.down_ended = true,
                Poll::Ready(Err(_)) if self.is_early() => return Poll::Ready(Err(End::Early)),
                Poll::Ready(Err(FlowError::Empty)) => self.down.may_be_empty(),
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Err(self.broken(&error, Cause::BackendBroke, Cause::ClientBroke)));
                }
                Poll::Pending => break,
            }
        }
        if self.up_ended && self.down_ended {
            return Poll::Ready(Ok(()));
        }
        if self.said.is_some() && !self.is_early() {
            self.said = None;
        }
        if self.count() {
            let now = Instant::now();
            self.going.used(now);
            self.silence.broken(now);
        }
        if self.up_ended || self.down_ended {
            self.going.waits(true);
        }
        if self.moves {
            self.going.full(self.is_full());
        }
        loop {
            match ready!(self.silence.poll(context)) {
                Silent::TooLong => return Poll::Ready(Err(End::For(Cause::Idle))),
                // Short connections are spared the calls.
                Silent::Settled => {
                    if let Err(error) = self.server.socket().ask_for_host(&self.dead_hosts) {
                        tracing::debug!(%error, "a backend's host is not looked for");
                    }
                }
            }
        }
    }

    /// A side takes nothing more in, and may not have got all of it.
    fn is_full(&self) -> bool {
        !(self.client.socket().is_writable() && self.server.socket().is_writable())
    }

    /// Nobody has said a word yet, and the connection is new: another backend can serve it as well.
    fn is_early(&self) -> bool {
        let Some(said) = &self.said else { return false };
        let silent = self.up.moved() == said.bytes.len() as u64 && self.down.moved() == 0 && !self.up_ended;
        silent && self.since.elapsed() < self.early
    }

    /// Whose fault it is that bytes of `source` do not reach `sink`.
    fn broken(&self, error: &FlowError, source: Cause, sink: Cause) -> End {
        let (listener, backend) = (&self.thread.listener, &self.busy.backend().address);
        tracing::debug!(%listener, %backend, %error, "a connection broke");
        End::For(if matches!(error, FlowError::Sink(_)) { sink } else { source })
    }

    /// Counts what has moved since the last time. False if nothing has.
    fn count(&mut self) -> bool {
        let moved = (self.up.moved(), self.down.moved());
        let counted = std::mem::replace(&mut self.counted, moved);
        if counted == moved {
            return false;
        }
        self.busy.backend().detail.moved(moved.0 - counted.0, moved.1 - counted.1);
        self.going.waits(moved.0 > counted.0);
        self.entry.moved((self.exchanged.0 + moved.0, self.exchanged.1 + moved.1));
        true
    }
}

/// Has the other side see a reset when the connection is dropped, and not an end. Within TLS the missing close says so too.
pub(super) fn reset(stream: &Stream) {
    if let Socket::Tcp(socket) = stream.socket()
        && let Err(error) = linger(socket)
    {
        tracing::debug!(%error, "a connection ends without a reset");
    }
}

fn linger(socket: &tokio::net::TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}
