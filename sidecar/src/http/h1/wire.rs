//! One connection with what was read and not yet taken, and what was written and not yet sent.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    http::transport::Transport,
    net::buffer::{Buffer, LARGE, SMALL},
};

/// Bodies up to this size are copied behind the head, which is cheaper than a write of two pieces.
const COPIED: usize = 4 * 1024;

/// Room for heads that a connection keeps: enough for most, so that they need no allocation.
const KEPT: usize = 2 * 1024;

/// A connection's two directions.
#[derive(Debug)]
pub(in crate::http) struct Wire {
    pub(super) stream: Transport,
    /// None while there is nothing in it.
    input: Option<Buffer>,
    pub(in crate::http) output: Output,
    /// Bytes given to the kernel so far.
    written: u64,
}

/// Bytes on their way out: heads, and what is put around bodies.
#[derive(Debug, Default)]
pub(in crate::http) struct Output {
    bytes: Vec<u8>,
    sent: usize,
    /// TLS may hold back what it took.
    unflushed: bool,
}

impl Wire {
    pub(in crate::http) fn new(stream: Transport) -> Self {
        Self { stream, input: None, output: Output::default(), written: 0 }
    }

    /// What was read and not taken.
    pub(in crate::http) fn input(&self) -> &[u8] {
        self.input.as_ref().map_or(&[], Buffer::filled)
    }

    /// Takes the buffer with all that was read.
    pub(super) fn take_input(&mut self) -> Option<Buffer> {
        self.input.take()
    }

    /// Takes bytes from the front of the input.
    pub(super) fn consume(&mut self, count: usize) {
        if let Some(input) = &mut self.input {
            input.consume(count);
            if input.is_empty() {
                self.input = None;
            }
        }
    }

    /// Reads more into the input, up to `most` bytes in all; 0 is the end of the stream.
    pub(super) fn poll_fill(
        &mut self,
        context: &mut Context<'_>,
        size: usize,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        if self.input.is_none() {
            // A socket that has nothing takes no buffer.
            if let Some(socket) = self.stream.as_tcp() {
                ready!(socket.poll_read_ready(context))?;
            }
        }
        let input = self.input.get_or_insert_with(|| Buffer::take(size));
        if !input.make_room(most) {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::StorageFull)));
        }
        let mut spare = ReadBuf::new(input.spare());
        let polled = Pin::new(&mut self.stream).poll_read(context, &mut spare);
        let count = spare.filled().len();
        input.added(count);
        if input.is_empty() {
            self.input = None;
        }
        polled.map_ok(|()| count)
    }

    /// Reads while the connection should be silent. Ready when the other side has ended it; bytes that come are kept.
    pub(super) fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.input().len() < SMALL {
            match ready!(self.poll_fill(context, SMALL, SMALL)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// Copies a small body behind the head that waits in the output. Gives how much of it was taken: all or nothing.
    pub(super) fn append(&mut self, body: &[u8]) -> usize {
        if self.output.is_empty() || body.len() > COPIED {
            return 0;
        }
        self.output.bytes.extend_from_slice(body);
        body.len()
    }

    /// Sends what is in the output, and after it bytes of a body. Gives how many of those it took; all of the output has gone
    /// when it is ready without a body.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>, body: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while !self.output.is_empty() {
            let pending = &self.output.bytes[self.output.sent..];
            let rest = &body[taken..];
            let written = if rest.is_empty() {
                Pin::new(&mut self.stream).poll_write(context, pending)
            } else {
                let slices = [IoSlice::new(pending), IoSlice::new(rest)];
                Pin::new(&mut self.stream).poll_write_vectored(context, &slices)
            };
            let written = match written {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                Poll::Pending => return Poll::Pending,
            };
            self.output.unflushed |= self.stream.is_tls();
            self.written += written as u64;
            taken += self.output.take(written);
        }
        while taken == 0 && !body.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(context, body))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => taken = written,
            }
            self.written += taken as u64;
            self.output.unflushed |= self.stream.is_tls();
        }
        if self.output.unflushed && taken == body.len() {
            match Pin::new(&mut self.stream).poll_flush(context) {
                Poll::Ready(Ok(())) => self.output.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if taken > 0 => return Poll::Ready(Ok(taken)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(taken))
    }

    /// Bytes given to the kernel so far, those through a pipe left out.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    /// Nothing has come, and the other side has not ended the connection.
    pub(in crate::http) fn is_quiet(&mut self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        self.input.is_none() && self.poll_fill(&mut context, SMALL, SMALL).is_pending()
    }

    /// What was read goes out on the other side.
    pub(super) fn hand_over(&mut self, to: &mut Self) {
        if let Some(input) = self.input.take() {
            to.output.bytes.extend_from_slice(input.filled());
        }
    }

    /// All that was written has been sent.
    pub(super) fn is_flushed(&self) -> bool {
        self.output.is_empty() && !self.output.unflushed
    }
}

/// The bytes as they come: what was read and not taken is the first of them. For who takes the connection over.
impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.input.is_none() && self.stream.as_tcp().is_some() {
            // Frames are shorter than what a socket has at hand, and are asked for one by one.
            ready!(self.poll_fill(context, LARGE, LARGE))?;
        }
        if self.input.is_none() {
            return Pin::new(&mut self.stream).poll_read(context, buffer);
        }
        let count = self.input().len().min(buffer.remaining());
        buffer.put_slice(&self.input()[..count]);
        self.consume(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Output {
    pub(super) fn is_empty(&self) -> bool {
        self.sent == self.bytes.len()
    }

    /// Where more is written to.
    pub(in crate::http) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Counts what was sent, and gives how much of it was more than the output.
    fn take(&mut self, written: usize) -> usize {
        let pending = self.bytes.len() - self.sent;
        if written < pending {
            self.sent += written;
            return 0;
        }
        self.sent = 0;
        self.bytes.clear();
        // An idle connection keeps room for a small head, and no more.
        self.bytes.shrink_to(KEPT);
        written - pending
    }
}
