//! Which HTTP is spoken on a connection to a backend: offer -> handshake -> what was agreed to.

use std::io;

use crds::config::Protocol;

use super::Stream;

/// What is spoken on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spoken {
    Http1,
    Http2,
}

/// What a backend is offered within TLS, the best one first; nothing where the protocol is the application's own.
pub fn offered(protocol: Option<Protocol>) -> &'static [&'static [u8]] {
    match protocol {
        None => &[],
        Some(Protocol::Http1) => &[b"http/1.1"],
        Some(Protocol::Http2) => &[b"h2"],
        Some(Protocol::Auto) => &[b"h2", b"http/1.1"],
    }
}

/// What is spoken on a new connection. Without TLS nothing is agreed to, so that the configuration alone decides.
pub fn spoken(stream: &Stream, protocol: Protocol) -> io::Result<Spoken> {
    let chosen = stream.alpn() == Some(b"h2");
    match protocol {
        Protocol::Http1 => Ok(Spoken::Http1),
        Protocol::Http2 if stream.is_tls() && !chosen => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "TLS: the backend does not agree to HTTP/2 (ALPN h2): set protocol: Auto or Http1 for its site",
        )),
        Protocol::Auto if !chosen => Ok(Spoken::Http1),
        Protocol::Http2 | Protocol::Auto => Ok(Spoken::Http2),
    }
}
