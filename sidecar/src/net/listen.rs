//! Sockets as the data plane wants them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use crds::units::Address;
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpSocket, TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};

use super::{Socket as Connected, Stream, tls::Peer, unix::UnixSocket};

/// A socket that listens, nonblocking and not yet known to a runtime.
pub enum Listening {
    Tcp(TcpListener),
    Unix(UnixSocket),
}

impl Listening {
    /// Where it listens; the port is the real one where 0 was asked for.
    pub fn address(&self) -> io::Result<Address> {
        match self {
            Self::Tcp(socket) => socket.local_addr().map(Address::from),
            Self::Unix(socket) => Ok(Address::Unix(socket.path())),
        }
    }
}

/// The kernel cuts it to net.core.somaxconn.
pub(super) const BACKLOG: i32 = 65_535;

/// A dead host is noticed after about 45 s even where nothing is being sent.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Pause before a Unix socket whose queue is full is tried again.
const FULL: Duration = Duration::from_millis(2);

/// Opens a listening socket.
pub fn bind(address: &Address) -> io::Result<Listening> {
    match address {
        Address::Ip(address) => bind_tcp(*address).map(Listening::Tcp),
        Address::Unix(path) => UnixSocket::bind(path).map(Listening::Unix),
    }
}

/// A restart does not wait for old connections to time out.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Connects to a backend, within TLS if it is met so; one that does not answer is [`io::ErrorKind::TimedOut`]. `alpn` are the
/// protocols that the caller speaks, the best one first.
pub async fn connect(
    address: &Address,
    tls: Option<&Peer>,
    alpn: &[&[u8]],
    limit: Duration,
) -> io::Result<Stream> {
    let end = Instant::now() + limit;
    let opened = async {
        match address {
            Address::Ip(address) => tcp(*address).await.map(Connected::Tcp),
            Address::Unix(path) => unix(path).await.map(Connected::Unix),
        }
    };
    let late = |what: &str| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {} ms", limit.as_millis()))
    };
    let socket = timeout_at(end, opened).await.map_err(|_| late("no answer to connect"))??;
    match tls {
        Some(peer) => timeout_at(end, peer.handshake(socket, alpn))
            .await
            .map_err(|_| late("TLS: the handshake did not come to its end"))?,
        None => Ok(socket.into()),
    }
}

/// The kernel does not let anyone wait at a full Unix socket: whoever comes asks again.
async fn unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(FULL).await,
            connected => return connected,
        }
    }
}

async fn tcp(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_nodelay(true)?;
    let stream = socket.connect(address).await?;
    keep_alive(&stream)?;
    Ok(stream)
}

pub(super) fn keep_alive(stream: &impl AsFd) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_port_refuses_at_once() {
        let address = bind(&([127, 0, 0, 1], 0).into()).unwrap().address().unwrap();
        let error = connect(&address, None, &[], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let first = bind(&([127, 0, 0, 1], 0).into()).unwrap();
        assert_eq!(bind(&first.address().unwrap()).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    }
}
