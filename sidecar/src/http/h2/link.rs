//! One connection to a backend in HTTP/2, which requests share. A task drives it for as long as someone holds the link.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::client::{self, Connection, SendRequest};
use http::uri::Scheme;
use tokio::{sync::oneshot, task::spawn_local};
use tokio_util::task::AbortOnDropHandle;

use super::{FRAME, HEADERS, SEND_BUFFER, STREAM_WINDOW, broken::describe, outbound::Outbound};
use crate::{http::h1::Wire, net::Stream};

/// Streams at once on one connection, if the backend allows as many: beyond it there is another connection.
const MOST_STREAMS: u32 = 100;

/// As much as all its streams together, so that clients which read slowly never keep others of the same connection waiting.
const CONNECTION_WINDOW: u32 = MOST_STREAMS * STREAM_WINDOW;

/// Streams until the backend has said how many there may be.
const UNHEARD: usize = 0;

/// A link on which nothing has come since a request was sent that was given up after this time gets no more of them.
const SILENT: Duration = Duration::from_secs(1);

/// A connection and its streams.
#[derive(Debug)]
pub(in crate::http) struct Link {
    sender: RefCell<SendRequest<Bytes>>,
    scheme: Scheme,
    /// Streams under way.
    streams: Cell<usize>,
    /// A request was answered on it.
    served: Cell<bool>,
    /// It takes no more streams.
    retired: Cell<bool>,
    /// Heads that have come.
    heard: Cell<u64>,
    idle_since: Cell<Instant>,
    _task: AbortOnDropHandle<()>,
}

/// A stream's place on its link.
#[derive(Debug)]
pub(super) struct Place {
    link: Rc<Link>,
    since: Instant,
    /// What had been heard when the request was sent.
    heard: u64,
    answered: bool,
}

impl Link {
    /// Begins to speak HTTP/2 on a new connection, and hears how many streams it may have. Callers set the limit.
    pub(super) async fn open(stream: Stream) -> io::Result<Rc<Self>> {
        let scheme = if stream.is_tls() { Scheme::HTTPS } else { Scheme::HTTP };
        let mut builder = client::Builder::new();
        builder
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_frame_size(FRAME)
            .max_header_list_size(HEADERS)
            .max_send_buffer_size(SEND_BUFFER)
            .initial_max_send_streams(UNHEARD);
        let (sender, connection) = builder.handshake(Wire::new(stream.into())).await.map_err(describe)?;
        let (told, heard) = oneshot::channel();
        let task = AbortOnDropHandle::new(spawn_local(drive(connection, sender.clone(), told)));
        match heard.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(error),
            Err(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(Rc::new(Self {
            sender: RefCell::new(sender),
            scheme,
            streams: Cell::new(0),
            served: Cell::new(false),
            retired: Cell::new(false),
            heard: Cell::new(0),
            idle_since: Cell::new(Instant::now()),
            _task: task,
        }))
    }

    /// A stream for one request; none while there are as many as may be.
    pub(in crate::http) fn stream(self: &Rc<Self>) -> Option<Outbound> {
        let sender = self.sender.borrow();
        let most = sender.current_max_send_streams().min(MOST_STREAMS as usize);
        if self.streams.get() >= most {
            return None;
        }
        let sender = sender.clone();
        self.streams.set(self.streams.get() + 1);
        let place =
            Place { link: Rc::clone(self), since: Instant::now(), heard: self.heard.get(), answered: false };
        Some(Outbound::new(sender, self.scheme.clone(), place))
    }

    /// It takes more requests: the backend has neither closed it nor said that it will, and it was not idle for so long.
    pub(super) fn is_good(&self, now: Instant, limit: Duration) -> bool {
        let idle = || now.saturating_duration_since(self.idle_since.get());
        if self.retired.get() || self.streams.get() == 0 && idle() >= limit {
            return false;
        }
        let mut context = Context::from_waker(Waker::noop());
        !matches!(self.sender.borrow_mut().poll_ready(&mut context), Poll::Ready(Err(_)))
    }

    /// A request was answered on it before, so that the backend may be closing it just now.
    pub(super) fn has_served(&self) -> bool {
        self.served.get()
    }
}

/// Drives a connection to its end. Tells when the backend's settings are there, or why they never will be.
async fn drive(
    mut connection: Connection<Wire, Bytes>,
    sender: SendRequest<Bytes>,
    told: oneshot::Sender<io::Result<()>>,
) {
    // A handle that stays would keep the connection open.
    let (mut told, mut sender) = (Some(told), Some(sender));
    let ended = poll_fn(|context| {
        let ended = Pin::new(&mut connection).poll(context);
        if sender.as_ref().is_some_and(|sender| sender.current_max_send_streams() != UNHEARD) {
            sender = None;
            // Nobody may be waiting any more.
            let _ = told.take().map(|told| told.send(Ok(())));
        }
        ended
    })
    .await;
    let Err(error) = ended else { return };
    tracing::debug!(%error, "a connection to a backend in HTTP/2 ended");
    if let Some(told) = told {
        let _ = told.send(Err(unspoken(error)));
    }
}

/// Why a backend did not even say how it speaks HTTP/2.
fn unspoken(error: h2::Error) -> io::Error {
    if error.is_io() {
        return describe(error);
    }
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!(
            "it does not speak HTTP/2 ({error}): set protocol: Http1 for its site, or Auto where it has TLS"
        ),
    )
}

impl Place {
    /// The head of the answer has come.
    pub(super) fn answered(&mut self) {
        self.answered = true;
        self.link.heard.set(self.link.heard.get() + 1);
        self.link.served.set(true);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let link = &self.link;
        link.streams.set(link.streams.get() - 1);
        let now = Instant::now();
        link.idle_since.set(now);
        if !self.answered && link.heard.get() == self.heard && now - self.since >= SILENT {
            link.retired.set(true);
        }
    }
}
