//! One connection, whatever it runs over: TCP or a Unix socket, plain or within TLS. The protocols above read and write
//! bytes; only who forwards without looking at them asks for the socket below.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsFd, BorrowedFd},
    pin::Pin,
    task::{Context, Poll},
};

use futures::FutureExt;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::{TlsStream, client, server};

use super::tls::Identity;

/// A connection to a client or to a backend.
#[derive(Debug)]
pub enum Stream {
    Plain(Socket),
    /// Much larger than a socket, and so on the heap.
    Tls(Box<TlsStream<Socket>>),
}

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    /// The TCP socket whose bytes are those of the protocol: there is none within TLS.
    pub fn as_tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(Socket::Tcp(stream)) => Some(stream),
            _ => None,
        }
    }

    /// What the connection runs over.
    pub fn socket(&self) -> &Socket {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }

    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// The other side's address; those who connect to a Unix socket have none.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.socket().peer_address()
    }

    /// The protocol that both sides agreed on, as in `h2`; `None` without TLS or when they did not speak of it.
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.get_ref().1.alpn_protocol(),
        }
    }

    /// The name of the server that a client asked for within TLS.
    pub fn server_name(&self) -> Option<&str> {
        match self {
            Self::Tls(stream) => match &**stream {
                TlsStream::Server(stream) => stream.get_ref().1.server_name(),
                TlsStream::Client(_) => None,
            },
            Self::Plain(_) => None,
        }
    }

    /// Who the other side is by its certificate, which the handshake has verified. Parses: to be asked once a connection.
    pub fn peer_identity(&self) -> Option<Identity> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Identity::of(stream.get_ref().1.peer_certificates()?.first()?),
        }
    }
}

impl Socket {
    /// The other side's address; those who connect to a Unix socket have none.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Whether it took in what was written last, and takes more.
    pub fn is_writable(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.writable().now_or_never().is_some(),
            Self::Unix(stream) => stream.writable().now_or_never().is_some(),
        }
    }
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        Self::Plain(socket)
    }
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Plain(Socket::Tcp(stream))
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Plain(Socket::Unix(stream))
    }
}

impl From<client::TlsStream<Socket>> for Stream {
    fn from(stream: client::TlsStream<Socket>) -> Self {
        Self::Tls(Box::new(stream.into()))
    }
}

impl From<server::TlsStream<Socket>> for Stream {
    fn from(stream: server::TlsStream<Socket>) -> Self {
        Self::Tls(Box::new(stream.into()))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket().as_fd()
    }
}

/// Passes one call on to whatever the enum holds.
macro_rules! each {
    ($self:ident, $first:ident | $second:ident, $inner:ident => $call:expr) => {
        match $self {
            Self::$first($inner) => $call,
            Self::$second($inner) => $call,
        }
    };
}

macro_rules! passes_bytes_on {
    ($kind:ty, $first:ident | $second:ident) => {
        impl AsyncRead for $kind {
            fn poll_read(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                buffer: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                let this = self.get_mut();
                each!(this, $first | $second, inner => Pin::new(inner).poll_read(context, buffer))
            }
        }

        impl AsyncWrite for $kind {
            fn poll_write(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                bytes: &[u8],
            ) -> Poll<io::Result<usize>> {
                let this = self.get_mut();
                each!(this, $first | $second, inner => Pin::new(inner).poll_write(context, bytes))
            }

            fn poll_write_vectored(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                let this = self.get_mut();
                each!(this, $first | $second, inner => Pin::new(inner).poll_write_vectored(context, slices))
            }

            fn is_write_vectored(&self) -> bool {
                each!(self, $first | $second, inner => inner.is_write_vectored())
            }

            fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                let this = self.get_mut();
                each!(this, $first | $second, inner => Pin::new(inner).poll_flush(context))
            }

            fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
                let this = self.get_mut();
                each!(this, $first | $second, inner => Pin::new(inner).poll_shutdown(context))
            }
        }
    };
}

passes_bytes_on!(Socket, Tcp | Unix);
passes_bytes_on!(Stream, Plain | Tls);
