//! What a wire runs over: a socket, or one stream after another of an HTTP/2 connection, which the loop meets as HTTP/1.1.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

use super::h2::{Inbound, Outbound};
use crate::net::Stream;

#[derive(Debug)]
pub(in crate::http) enum Transport {
    Socket(Stream),
    /// The requests of a client in HTTP/2.
    Inbound(Box<Inbound>),
    /// A request to a backend in HTTP/2.
    Outbound(Box<Outbound>),
}

impl Transport {
    /// The TCP socket whose bytes are those of the protocol.
    pub(super) fn as_tcp(&self) -> Option<&TcpStream> {
        self.socket().and_then(Stream::as_tcp)
    }

    /// What was agreed on within TLS is HTTP/2.
    pub(super) fn agreed_on_http2(&self) -> bool {
        self.socket().and_then(Stream::alpn) == Some(b"h2")
    }

    pub(super) fn is_tls(&self) -> bool {
        self.socket().is_some_and(Stream::is_tls)
    }

    /// Ready when the client wants no more of the answer. In HTTP/2 it says so; on a socket writing shows it.
    pub(super) fn poll_taken_back(&mut self, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Self::Inbound(inbound) => inbound.poll_taken_back(context),
            Self::Socket(_) | Self::Outbound(_) => Poll::Pending,
        }
    }

    /// Its end, when it is dropped, must not look like the end of an answer. A stream of HTTP/2 has no end that does.
    pub(super) fn end_with_reset(&self) {
        if let Some(socket) = self.socket() {
            // A failure leaves an ordinary close, which is all that can be done.
            let _ = SockRef::from(socket).set_linger(Some(Duration::ZERO));
        }
    }

    fn socket(&self) -> Option<&Stream> {
        match self {
            Self::Socket(stream) => Some(stream),
            Self::Inbound(_) | Self::Outbound(_) => None,
        }
    }
}

impl From<Stream> for Transport {
    fn from(stream: Stream) -> Self {
        Self::Socket(stream)
    }
}

/// Passes one call on to whatever the enum holds.
macro_rules! each {
    ($self:ident, $inner:ident => $call:expr) => {
        match $self.get_mut() {
            Self::Socket($inner) => $call,
            Self::Inbound($inner) => $call,
            Self::Outbound($inner) => $call,
        }
    };
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_read(context, buffer))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write(context, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, inner => Pin::new(inner).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.socket().is_some_and(Stream::is_write_vectored)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_flush(context))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, inner => Pin::new(inner).poll_shutdown(context))
    }
}
