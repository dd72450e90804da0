//! One connection of a client, from the thread's queue to its end: TLS, if the listener speaks it -> a backend -> a flow each
//! way.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use socket2::SockRef;

use super::{
    cancel::{self, Learner},
    connect::{Asked, Meeting, Met},
    flow::{Flow, FlowError},
    postgres::{self, Wanted, Words},
    settings::Settings,
    thread::Thread,
};
use crate::{
    balance::{Busy, Outcome},
    l4::metrics::{Cause, Counters},
    net::{
        Accepted, Alarm, Slot, Socket, Stream,
        postgres::CancelKey,
        proxy_protocol::{self, Ends},
    },
};

/// A client and a backend that are connected.
struct Session<'a> {
    thread: &'a Thread,
    client: Stream,
    server: Stream,
    up: Flow,
    down: Flow,
    up_ended: bool,
    down_ended: bool,
    idle: Duration,
    alarm: Alarm,
    since: Instant,
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
    let Opened { mut client, wanted, ends, _slot } = match open(&thread, &settings, accepted).await {
        Ok(opened) => opened,
        Err(error) => {
            tracing::debug!(listener = %thread.listener, %error, "a client did not come in");
            return thread.counters.failed(Cause::Handshake);
        }
    };
    let words = match wanted {
        Wanted::Server(words) => words,
        Wanted::Cancel(key) => return cancel(&thread, &settings, ends, &key).await,
    };
    let mut asked = Asked::default();
    loop {
        // What connecting needs is much, and needed no more once there is a connection.
        let met = Box::pin(async { Meeting::new(&thread, &settings, ends, &mut asked).meet().await }).await;
        let Met { stream: server, busy } = match met {
            Ok(met) => met,
            Err(cause) => {
                thread.refuse(cause);
                let route = thread.route();
                return match words.unread {
                    Some(unread) => {
                        let reason = route.unavailable.trim_end();
                        postgres::no_server(&mut client, unread, &thread.listener, reason).await;
                    }
                    None => reset(&client),
                };
            }
        };
        match Session::new(&thread, &settings, client, &words, server, busy).run().await {
            Some(kept) => client = kept,
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
async fn open(thread: &Thread, settings: &Settings, accepted: Accepted) -> io::Result<Opened> {
    let (mut socket, slot) = accepted.register()?;
    let ends = if settings.takes_ends {
        proxy_protocol::read(&mut socket).await?
    } else if settings.tells_ends.is_some() || thread.route().hashes_source() {
        Ends::of(&socket)
    } else {
        None
    };
    let tls = thread.tls();
    let (client, wanted) = match (settings.postgres, tls) {
        (Some(manners), tls) => Box::pin(manners.open(socket, tls.as_deref())).await?,
        (None, Some(server)) => (server.accept(socket).await?, Wanted::Server(Words::default())),
        (None, None) => (socket.into(), Wanted::Server(Words::default())),
    };
    Ok(Opened { client, wanted, ends, _slot: slot })
}

/// Passes on a client's request to cancel. As the server itself would, it tells the client nothing but that it was heard.
async fn cancel(thread: &Thread, settings: &Settings, ends: Option<Ends>, key: &CancelKey) {
    let listener = &thread.listener;
    let Some(backend) = thread.keys.issuer(key) else {
        tracing::debug!(%listener, "a request to cancel names no connection of this listener");
        return thread.counters.failed(Cause::Cancel);
    };
    let preface = settings.tells_ends.map(|version| proxy_protocol::write(version, ends));
    let passed =
        Box::pin(cancel::pass_on(&backend, key, &preface.unwrap_or_default(), settings.connect)).await;
    if let Err(error) = passed {
        tracing::debug!(%listener, backend = %backend.address, %error, "a request to cancel could not be passed on");
        thread.counters.failed(Cause::Cancel);
    }
    thread.queue.freed();
}

impl<'a> Session<'a> {
    fn new(
        thread: &'a Thread,
        settings: &Settings,
        client: Stream,
        words: &Words,
        server: Stream,
        busy: Busy<Counters>,
    ) -> Self {
        let backend = busy.backend();
        backend.detail.connected();
        let postgres = settings.postgres.is_some();
        let learner = postgres.then(|| Learner::new(&thread.keys, backend, words.asked));
        Self {
            thread,
            client,
            server,
            up: if words.said.is_empty() { Flow::new() } else { Flow::begun(&words.said) },
            down: Flow::new().not_empty().seen_by(learner),
            up_ended: false,
            down_ended: false,
            idle: settings.idle,
            alarm: Alarm::after(settings.idle),
            since: Instant::now(),
            early: settings.connect,
            busy,
            counted: (0, 0),
        }
    }

    /// Moves bytes until both sides have ended. Gives the client back if the backend has left it before anybody said a word.
    async fn run(mut self) -> Option<Stream> {
        let backend = Arc::clone(self.busy.backend());
        let going = self.thread.register(&backend);
        let ended = tokio::select! {
            biased;
            ended = poll_fn(|context| self.poll(context)) => ended,
            () = going.told() => Err(End::For(Cause::BackendDown)),
        };
        drop(going);
        self.count();
        if self.down.moved() > 0 {
            backend.observe(Outcome::Good, Duration::ZERO);
        } else if matches!(ended, Err(End::Early | End::For(Cause::BackendBroke))) {
            backend.observe(Outcome::Broken, Duration::ZERO);
        }
        let Self { thread, client, server, busy, .. } = self;
        let kept = match ended {
            Ok(()) => None,
            Err(End::Early) => Some(client),
            Err(End::For(cause)) => {
                thread.counters.failed(cause);
                // Each side learns that this is not the end of the bytes.
                reset(&client);
                reset(&server);
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
        if self.count() {
            self.alarm.set_after(self.idle);
        }
        self.alarm.poll(context).map(|()| Err(End::For(Cause::Idle)))
    }

    /// Nobody has said a word yet, and the connection is new: another backend can serve it as well.
    fn is_early(&self) -> bool {
        let silent = self.up.moved() == 0 && self.down.moved() == 0 && !self.up_ended;
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
