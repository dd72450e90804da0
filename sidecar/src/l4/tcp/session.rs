//! One connection of a client, from the thread's queue to its end: TLS, if the listener speaks it -> a backend -> a flow each
//! way.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::time::{Instant, timeout};

use super::{
    cancel::{self, Learner},
    connect::{Asked, Meeting, Met},
    entry::Entry,
    flow::{Flow, FlowError},
    postgres::{self, Said, Wanted, Words},
    settings::Settings,
    silence::{Silence, Silent},
    thread::{Registered, Thread},
};
use crate::{
    balance::{Busy, Outcome},
    l4::metrics::{Cause, Counters},
    net::{
        Accepted, DeadHosts, Slot, Socket, Stream,
        postgres::CancelKey,
        proxy_protocol::{self, Ends},
        tls::Hello,
    },
};

/// A client whose server name decides and that has not begun with TLS after this time is cut off.
const HELLO: Duration = Duration::from_secs(10);

/// A client and a backend that are connected.
struct Session<'a> {
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
    /// Bytes that were counted at the backend.
    counted: (u64, u64),
}

/// How a session ends that does not end as both sides wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The backend has left before anybody said a word.
    Early,
    For(Cause),
}

/// Serves a connection to its end.
pub(super) async fn serve(thread: Rc<Thread>, accepted: Accepted) {
    let _present = thread.enter();
    let settings = thread.settings();
    let entry = Entry::begin(&thread);
    let Opened { mut client, wanted, ends, _slot } = match open(&thread, &settings, accepted, &entry).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(listener = %thread.listener, %error, "a client did not come in");
            entry.ends(Some(Cause::Handshake));
            return thread.counters.failed(Cause::Handshake);
        }
    };
    let Words { mut said, unread, name } = match wanted {
        Wanted::Server(words) => words,
        Wanted::Cancel(key) => return entry.ends(cancel(&thread, &settings, ends, &key).await),
    };
    let Some(thread) = thread.of_name(name.as_deref()) else {
        tracing::debug!(listener = %thread.listener, name, "no route is for what a client asks for");
        entry.ends(Some(Cause::NoRoute));
        thread.counters.failed(Cause::NoRoute);
        return reset(&client);
    };
    drop(name);
    let mut asked = Asked::default();
    loop {
        // What connecting needs is much, and needed no more once there is a connection.
        let met = Box::pin(async { Meeting::new(&thread, &settings, ends, &mut asked).meet().await }).await;
        let Met { stream: server, busy } = match met {
            Ok(met) => met,
            Err(cause) => {
                entry.asked(asked.last(), asked.count());
                entry.ends(Some(cause));
                thread.refuse(cause);
                let route = thread.route();
                return match unread {
                    Some(unread) => {
                        let reason = route.unavailable.trim_end();
                        postgres::no_server(&mut client, unread, &thread.listener, reason).await;
                    }
                    None => reset(&client),
                };
            }
        };
        entry.asked(Some(busy.backend()), asked.count());
        entry.met();
        match Session::new(&thread, &entry, &settings, client, said, server, busy).run().await {
            Some(kept) => (client, said) = kept,
            None => return,
        }
    }
}

/// A client that has come in.
struct Opened {
    client: Stream,
    wanted: Wanted,
    ends: Option<Ends>,
    _slot: Slot,
}

/// What comes before the client's own bytes: the PROXY protocol, then TLS, which it may ask for first.
async fn open(
    thread: &Thread,
    settings: &Settings,
    accepted: Accepted,
    entry: &Entry<'_>,
) -> io::Result<Opened> {
    let (mut socket, slot) = accepted.register()?;
    entry.comes_from(|| socket.peer_address());
    let ends = if settings.takes_ends {
        proxy_protocol::read(&mut socket).await?
    } else if settings.tells_ends.is_some() || thread.route().hashes_source() {
        Ends::of(&socket)
    } else {
        None
    };
    if let Some(ends) = ends {
        entry.comes_from(|| Some(ends.source));
    }
    let tls = thread.tls();
    let (client, wanted) = match (settings.postgres, tls) {
        (Some(manners), tls) => Box::pin(manners.open(socket, tls.as_deref())).await?,
        (None, Some(server)) => (server.accept(socket).await?, Wanted::Server(Words::default())),
        (None, None) if settings.by_name => {
            let heard = Box::pin(timeout(HELLO, Hello::read(&mut socket))).await;
            let Hello { said, is_alone, name } = heard.map_err(|_| late())??;
            let said = Said { bytes: said, once: !is_alone, asked: false };
            (socket.into(), Wanted::Server(Words { said, unread: None, name }))
        }
        (None, None) => (socket.into(), Wanted::Server(Words::default())),
    };
    entry.opened(&client);
    Ok(Opened { client, wanted, ends, _slot: slot })
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no ClientHello within 10 s")
}

/// Passes on a client's request to cancel. As the server itself would, it tells the client nothing but that it was heard.
async fn cancel(thread: &Thread, settings: &Settings, ends: Option<Ends>, key: &CancelKey) -> Option<Cause> {
    let listener = &thread.listener;
    let Some(backend) = thread.keys.issuer(key) else {
        tracing::debug!(%listener, "a request to cancel names no connection of this listener");
        thread.counters.failed(Cause::Cancel);
        return Some(Cause::Cancel);
    };
    let preface = settings.tells_ends.map(|version| proxy_protocol::write(version, ends));
    let passed =
        Box::pin(cancel::pass_on(&backend, key, &preface.unwrap_or_default(), settings.connect)).await;
    thread.queue.freed();
    let error = passed.err()?;
    tracing::debug!(%listener, backend = %backend.address, %error, "a request to cancel could not be passed on");
    thread.counters.failed(Cause::Cancel);
    Some(Cause::Cancel)
}

impl<'a> Session<'a> {
    fn new(
        thread: &'a Thread,
        entry: &'a Entry<'a>,
        settings: &Settings,
        client: Stream,
        said: Said,
        server: Stream,
        busy: Busy<Counters>,
    ) -> Self {
        let backend = busy.backend();
        backend.detail.connected();
        let postgres = settings.postgres.is_some();
        let offers_channel = postgres && server.is_tls() && !client.is_tls();
        let learner = postgres.then(|| Learner::new(&thread.keys, backend, said.asked));
        Self {
            thread,
            entry,
            client,
            server,
            up: if said.bytes.is_empty() { Flow::new() } else { Flow::begun(&said.bytes) },
            down: Flow::new().not_empty().seen_by(learner).shortens_offer(offers_channel),
            said: (!said.once).then_some(said),
            up_ended: false,
            down_ended: false,
            silence: Silence::new(settings.idle, settings.dead_hosts.after),
            dead_hosts: settings.dead_hosts,
            since: Instant::now(),
            going: thread.register(busy.backend()),
            moves: settings.rebalance.is_some(),
            early: settings.connect,
            busy,
            counted: (0, 0),
        }
    }

    /// Moves bytes until both sides have ended. Gives the client and its words back if the backend has left it before anybody said
    /// more.
    async fn run(mut self) -> Option<(Stream, Said)> {
        let backend = Arc::clone(self.busy.backend());
        let going = self.going.shared();
        let ended = loop {
            tokio::select! {
                biased;
                ended = poll_fn(|context| self.poll(context)) => break ended,
                cause = going.told() => {
                    let full = self.is_full();
                    if cause != Cause::Rebalanced || !(full || going.has_gone_on()) {
                        break Err(End::For(cause));
                    }
                    self.going.full(full);
                }
            }
        };
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
        let before = std::mem::replace(&mut self.counted, moved);
        if before == moved {
            return false;
        }
        self.busy.backend().detail.moved(moved.0 - before.0, moved.1 - before.1);
        self.going.waits(moved.0 > before.0);
        self.entry.moved(moved);
        true
    }
}

/// Has the other side see a reset when the connection is dropped, and not an end. Within TLS the missing close says so too.
fn reset(stream: &Stream) {
    if let Socket::Tcp(socket) = stream.socket()
        && let Err(error) = linger(socket)
    {
        tracing::debug!(%error, "a connection ends without a reset");
    }
}

fn linger(socket: &tokio::net::TcpStream) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}
