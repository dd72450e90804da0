//! Bodies on their way through: passed on as they come, watched only for where they end.

use std::{
    cell::Cell,
    error::Error,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures::task::AtomicWaker;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::{client::Client, exchange::Exchange};

type BodyError = Box<dyn Error + Send + Sync>;

/// A backend that sends nothing more of a body for this time has failed.
const STALLED: Duration = Duration::from_secs(300);

/// A backend that does not know `Expect` gets the body after this time.
const CONTINUE: Duration = Duration::from_secs(1);

/// The body of a request towards a backend.
pub(super) struct RequestBody {
    /// None for a request without body.
    streamed: Option<Streamed>,
}

struct Streamed {
    body: Incoming,
    upload: Rc<Upload>,
    client: Arc<Client>,
    gate: Option<(Arc<Gate>, Pin<Box<Sleep>>)>,
}

/// How far a request's body has come.
#[derive(Default)]
pub(super) struct Upload {
    complete: Cell<bool>,
    failed: Cell<bool>,
    bytes: Cell<u64>,
}

impl RequestBody {
    pub(super) fn empty() -> Self {
        Self { streamed: None }
    }

    /// Streams a body. With a gate, the first byte of it is asked for when the gate opens.
    pub(super) fn stream(
        body: Incoming,
        gate: Option<Arc<Gate>>,
        client: &Arc<Client>,
    ) -> (Self, Rc<Upload>) {
        let upload = Rc::<Upload>::default();
        let gate = gate.map(|gate| (gate, Box::pin(sleep(CONTINUE))));
        let streamed = Streamed { body, upload: Rc::clone(&upload), client: Arc::clone(client), gate };
        (Self { streamed: Some(streamed) }, upload)
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        if !self.upload.complete.get() {
            self.client.leaves_body();
        }
    }
}

impl Upload {
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// The client broke off.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.get()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(streamed) = &mut self.streamed else { return Poll::Ready(None) };
        if let Some((gate, timer)) = &mut streamed.gate {
            ready!(gate.poll(timer.as_mut(), context));
            streamed.gate = None;
        }
        let frame = ready!(Pin::new(&mut streamed.body).poll_frame(context));
        let upload = &streamed.upload;
        match &frame {
            Some(Ok(frame)) => {
                upload.bytes.set(upload.bytes.get() + frame.data_ref().map_or(0, |data| data.len() as u64));
                upload.complete.set(frame.is_trailers() || streamed.body.is_end_stream());
            }
            Some(Err(_)) => upload.failed.set(true),
            None => upload.complete.set(true),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.streamed.as_ref().is_none_or(|streamed| streamed.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.streamed.as_ref().map_or(SizeHint::with_exact(0), |streamed| streamed.body.size_hint())
    }
}

/// Holds a body back until the backend wants it: asking for it is what makes the client's `100 Continue`.
#[derive(Default)]
pub(super) struct Gate {
    state: AtomicU8,
    waker: AtomicWaker,
}

const OPEN: u8 = 1;
const SHUT: u8 = 2;

impl Gate {
    pub(super) fn open(&self) {
        if self.state.compare_exchange(0, OPEN, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            self.waker.wake();
        }
    }

    /// The backend answered without having seen the body: it is never asked for.
    pub(super) fn shut(&self) {
        let _ = self.state.compare_exchange(0, SHUT, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn poll(&self, timer: Pin<&mut Sleep>, context: &mut Context<'_>) -> Poll<()> {
        self.waker.register(context.waker());
        match self.state.load(Ordering::Relaxed) {
            OPEN => Poll::Ready(()),
            SHUT => Poll::Pending,
            _ => timer.poll(context),
        }
    }
}

/// The body of an answer to a client.
pub(super) enum ResponseBody {
    /// The sidecar's own words.
    Own { body: Full<Bytes> },
    /// What a backend sends.
    Forwarded(Box<Forwarded>),
}

pub(super) struct Forwarded {
    body: Incoming,
    /// Until the body has ended.
    exchange: Option<Exchange>,
    stall: Option<Stall>,
}

struct Stall {
    timer: Pin<Box<Sleep>>,
    /// Bytes received when the timer was set.
    received: u64,
}

/// The backend went silent in the middle of a body.
#[derive(Debug, thiserror::Error)]
#[error("the backend sent nothing for {} s", STALLED.as_secs())]
struct Stalled;

impl ResponseBody {
    pub(super) fn own(text: String) -> Self {
        Self::Own { body: Full::new(Bytes::from(text)) }
    }

    pub(super) fn empty() -> Self {
        Self::Own { body: Full::default() }
    }

    pub(super) fn forwarded(body: Incoming, exchange: Exchange) -> Self {
        let mut forwarded = Forwarded { body, exchange: Some(exchange), stall: None };
        forwarded.finish_at_end(false);
        Self::Forwarded(Box::new(forwarded))
    }
}

impl Forwarded {
    /// The last byte, or the trailers, free the connection for the next request before the client has seen them.
    fn finish_at_end(&mut self, trailers: bool) {
        if (trailers || self.body.is_end_stream())
            && let Some(exchange) = self.exchange.take()
        {
            exchange.finish();
        }
    }

    fn poll_frame(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let (Some(exchange), Some(data)) = (&mut self.exchange, frame.data_ref()) {
                    exchange.received += data.len() as u64;
                }
                self.finish_at_end(frame.is_trailers());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.fail(error)))),
            Poll::Ready(None) => {
                if let Some(exchange) = self.exchange.take() {
                    exchange.finish();
                }
                Poll::Ready(None)
            }
            Poll::Pending => self.poll_stall(context),
        }
    }

    fn poll_stall(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let received = self.exchange.as_ref().map_or(0, |exchange| exchange.received);
        let stall = self.stall.get_or_insert_with(|| Stall { timer: Box::pin(sleep(STALLED)), received });
        while stall.timer.as_mut().poll(context).is_ready() {
            if stall.received == received {
                return Poll::Ready(Some(Err(self.fail(Stalled))));
            }
            stall.received = received;
            stall.timer.as_mut().reset(Instant::now() + STALLED);
        }
        Poll::Pending
    }

    fn fail(&mut self, error: impl Into<BodyError>) -> BodyError {
        let error = error.into();
        if let Some(exchange) = self.exchange.take() {
            exchange.fail(error.as_ref());
        }
        error
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own { body } => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Forwarded(forwarded) => forwarded.poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own { body } => body.is_end_stream(),
            Self::Forwarded(forwarded) => forwarded.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own { body } => body.size_hint(),
            Self::Forwarded(forwarded) => forwarded.body.size_hint(),
        }
    }
}
