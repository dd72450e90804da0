//! The client's side of a connection, and the watch over it: too slow a head, too long an idle time, or a broken answer.

use std::{
    future::Future,
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::net::Stream;

/// How often a connection is looked at. A head has one to two of these to arrive.
pub(super) const WATCH: Duration = Duration::from_secs(15);

/// Looks in a row without any traffic after which a connection is closed: five minutes.
const IDLE_LOOKS: u32 = 20;

/// A client that is still sending a body that nobody wants gets this long, and this many bytes, to see the answer: closing
/// with unread bytes is a reset, which takes away an answer that has not been read.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 << 20;

/// What one connection of a client has done so far. One thread writes; the upgrade machinery wants it to be `Send`.
#[derive(Default)]
pub(super) struct Client {
    read: AtomicU64,
    /// Value of `read` when the last request ended.
    read_before: AtomicU64,
    begun: AtomicU64,
    ended: AtomicU64,
    abort: AtomicBool,
    unread: AtomicBool,
}

impl Client {
    pub(super) fn request_begins(&self) {
        add(&self.begun, 1);
    }

    pub(super) fn request_ends(&self) {
        add(&self.ended, 1);
        self.read_before.store(self.read.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    pub(super) fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.ended.load(Ordering::Relaxed)
    }

    /// An answer broke off: the connection ends with a reset, since a clean end could pass for the end of the answer.
    pub(super) fn abort(&self) {
        self.abort.store(true, Ordering::Relaxed);
    }

    /// The rest of a request's body is not wanted any more.
    pub(super) fn leaves_body(&self) {
        self.unread.store(true, Ordering::Relaxed);
    }

    fn has_part_of_a_head(&self) -> bool {
        self.read.load(Ordering::Relaxed) != self.read_before.load(Ordering::Relaxed)
    }
}

/// One writer, so that no atomic addition is needed.
fn add(counter: &AtomicU64, count: u64) {
    counter.store(counter.load(Ordering::Relaxed) + count, Ordering::Relaxed);
}

/// Judges a connection, looking at it now and then.
#[derive(Default)]
pub(super) struct Watch {
    begun: u64,
    partial: bool,
    idle: u32,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Nothing has happened for long: close.
    Idle,
    /// The head does not come to its end: cut off.
    Slow,
}

impl Watch {
    pub(super) fn look(&mut self, client: &Client) -> Verdict {
        let begun = client.begun.load(Ordering::Relaxed);
        if client.is_busy() || begun != self.begun {
            *self = Self { begun, partial: false, idle: 0 };
            return Verdict::Fine;
        }
        let partial = client.has_part_of_a_head();
        if partial && self.partial {
            return Verdict::Slow;
        }
        self.partial = partial;
        self.idle += 1;
        if self.idle >= IDLE_LOOKS { Verdict::Idle } else { Verdict::Fine }
    }
}

/// The client's socket: counts what is read, and resets the connection where it must not end cleanly.
pub(super) struct ClientIo {
    stream: Stream,
    client: Arc<Client>,
    linger: Option<Linger>,
}

/// The end of a connection whose client is still sending.
struct Linger {
    timer: Pin<Box<Sleep>>,
    left: usize,
}

impl ClientIo {
    pub(super) fn new(stream: Stream, client: Arc<Client>) -> Self {
        Self { stream, client, linger: None }
    }
}

impl Drop for ClientIo {
    fn drop(&mut self) {
        // With a request under way this is a cut, of an answer perhaps that has no end but the connection's.
        if self.client.abort.load(Ordering::Relaxed) || self.client.is_busy() {
            // If it cannot be set, the connection is gone already.
            let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        }
    }
}

impl Linger {
    /// Reads and forgets, until the client has ended too or has had enough.
    fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<()> {
        let mut block = [0; 16 * 1024];
        while self.left > 0 && self.timer.as_mut().poll(context).is_pending() {
            let mut buffer = ReadBuf::new(&mut block);
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            self.left = self.left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(())
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let result = ready!(Pin::new(&mut self.stream).poll_read(context, buffer));
        add(&self.client.read, (buffer.filled().len() - before) as u64);
        Poll::Ready(result)
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.client.abort.load(Ordering::Relaxed) {
            return Poll::Ready(Ok(()));
        }
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(context))?;
            if !self.client.unread.load(Ordering::Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let Self { stream, linger, .. } = &mut *self;
        let linger =
            linger.get_or_insert_with(|| Linger { timer: Box::pin(sleep(LINGER)), left: LINGER_BYTES });
        linger.poll(stream, context).map(Ok)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_is_closed_and_a_busy_one_never() {
        let (client, mut watch) = (Client::default(), Watch::default());
        for _ in 1..IDLE_LOOKS {
            assert_eq!(watch.look(&client), Verdict::Fine);
        }
        assert_eq!(watch.look(&client), Verdict::Idle);
        client.request_begins();
        for _ in 0..100 {
            add(&client.read, 1);
            assert_eq!(watch.look(&client), Verdict::Fine);
        }
    }

    #[test]
    fn a_head_that_does_not_end_is_cut_off() {
        let (client, mut watch) = (Client::default(), Watch::default());
        client.request_begins();
        add(&client.read, 100);
        client.request_ends();
        assert_eq!(watch.look(&client), Verdict::Fine);
        add(&client.read, 3);
        assert_eq!(watch.look(&client), Verdict::Fine);
        add(&client.read, 3);
        assert_eq!(watch.look(&client), Verdict::Slow);
    }
}
