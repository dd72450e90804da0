//! Sockets as the data plane wants them.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    path::Path,
    time::Duration,
};

use crds::units::Address;
use futures::{StreamExt, stream::FuturesUnordered};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpSocket, TcpStream, UnixStream},
    time::{Instant, sleep, timeout_at},
};

use super::{DeadHosts, Socket as Connected, Stream, tls::Peer, unix::UnixSocket};

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

    /// Another handle of a TCP socket.
    pub(super) fn tcp(&self) -> io::Result<Option<TcpListener>> {
        match self {
            Self::Tcp(socket) => socket.try_clone().map(Some),
            Self::Unix(_) => Ok(None),
        }
    }
}

/// The kernel cuts it to net.core.somaxconn.
pub(super) const BACKLOG: i32 = 65_535;

/// Another address of a server is asked after this time, as RFC 8305 recommends.
const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Pause before a Unix socket whose queue is full is tried again.
const FULL: Duration = Duration::from_millis(2);

/// Opens a listening socket.
pub fn bind(address: &Address) -> io::Result<Listening> {
    match address {
        Address::Ip(address) => bind_tcp(*address).map(Listening::Tcp),
        Address::Unix(path) => UnixSocket::bind(path).map(Listening::Unix),
    }
}

/// A restart does not wait for old connections to time out. Connections have their options from the socket that they are
/// accepted at, which spares a call for each.
fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    DeadHosts::default().ask(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A server: where it is, and how it is met.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    pub address: &'a Address,
    /// Further addresses of it, tried one after the other.
    pub others: &'a [Address],
    /// Within TLS; none in plain text.
    pub tls: Option<&'a Peer>,
    /// Asked in another protocol than its own, as checks by HTTP ask a database: TLS begins with the first byte then.
    pub foreign: bool,
}

impl<'a> Target<'a> {
    /// With one address.
    pub fn new(address: &'a Address, tls: Option<&'a Peer>) -> Self {
        Self { address, others: &[], tls, foreign: false }
    }
}

/// Connects to a server, within TLS if it is met so, and does not [ask](Connected::ask_for_host) yet whether its host is still
/// there; one that does not answer is [`io::ErrorKind::TimedOut`]. `alpn` are the
/// protocols that the caller speaks, the best one first; `preface` are bytes in front of everything else.
pub async fn connect(
    target: Target<'_>,
    alpn: &[&[u8]],
    preface: &[u8],
    limit: Duration,
) -> io::Result<Stream> {
    let end = Instant::now() + limit;
    let opened =
        async { if target.others.is_empty() { open(target.address).await } else { open_any(target).await } };
    let late = |what: &str| {
        io::Error::new(io::ErrorKind::TimedOut, format!("{what} within {} ms", limit.as_millis()))
    };
    let mut socket = timeout_at(end, opened).await.map_err(|_| late("no answer to connect"))??;
    if !preface.is_empty() {
        let written = timeout_at(end, socket.write_all(preface)).await;
        written.map_err(|_| late("it did not take who the client is"))??;
    }
    match target.tls {
        Some(peer) => timeout_at(end, peer.handshake(socket, alpn, target.foreign))
            .await
            .map_err(|_| late("TLS: the handshake did not come to its end"))?,
        None => Ok(socket.into()),
    }
}

async fn open(address: &Address) -> io::Result<Connected> {
    match address {
        Address::Ip(address) => tcp(*address).await.map(Connected::Tcp),
        Address::Unix(path) => unix(path).await.map(Connected::Unix),
    }
}

/// The first address that answers: each is asked when the one before has failed, or has not answered for a moment
/// (Happy Eyeballs, RFC 8305).
async fn open_any(target: Target<'_>) -> io::Result<Connected> {
    let mut rest = target.others.iter();
    let mut asked = FuturesUnordered::new();
    asked.push(open(target.address));
    loop {
        let failed = tokio::select! {
            biased;
            Some(opened) = asked.next() => match opened {
                Ok(socket) => return Ok(socket),
                Err(error) => Some(error),
            },
            () = sleep(NEXT_ADDRESS), if rest.len() > 0 => None,
        };
        match (rest.next(), failed) {
            (Some(next), _) => asked.push(open(next)),
            (None, Some(error)) if asked.is_empty() => return Err(error),
            (None, _) => {}
        }
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
    socket.connect(address).await
}

impl Connected {
    /// Has the kernel notice a dead host where nothing is being sent. Connections that were accepted have that from the socket that
    /// they came in at. Four calls to the kernel: for connections that live long.
    pub fn ask_for_host(&self, hosts: &DeadHosts) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => hosts.ask(stream),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Has the kernel break the connection when something that was sent is not acknowledged for too long, if that is wanted.
    pub fn break_unacknowledged(&self, hosts: &DeadHosts) -> io::Result<()> {
        match self {
            Self::Tcp(stream) if hosts.unacknowledged.is_some() => hosts.break_unacknowledged(stream),
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;

    use super::*;

    #[tokio::test]
    async fn a_closed_port_refuses_at_once() {
        let address = bind(&([127, 0, 0, 1], 0).into()).unwrap().address().unwrap();
        let error = connect(Target::new(&address, None), &[], &[], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    /// An address that refuses, and one that listens.
    fn closed_and_open() -> (Address, Address, Listening) {
        let address = || bind(&([127, 0, 0, 1], 0).into()).unwrap();
        let open = address();
        (address().address().unwrap(), open.address().unwrap(), open)
    }

    #[tokio::test]
    async fn a_server_is_reached_at_whichever_of_its_addresses_answers() {
        let (closed, open, _listening) = closed_and_open();
        let also_closed = closed_and_open().0;
        for (address, others) in [
            (&open, vec![closed.clone()]),
            (&closed, vec![open.clone()]),
            (&closed, vec![also_closed.clone(), open.clone()]),
        ] {
            let target = Target { others: &others, ..Target::new(address, None) };
            let stream = connect(target, &[], &[], Duration::from_secs(5)).await.unwrap();
            assert_eq!(stream.peer_address(), open.ip());
        }
        let target = Target { others: &[also_closed], ..Target::new(&closed, None) };
        let error = connect(target, &[], &[], Duration::from_secs(5)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn a_connection_looks_for_a_dead_host_once_it_is_told_to() {
        let (_, address, _listening) = closed_and_open();
        let stream = connect(Target::new(&address, None), &[], &[], Duration::from_secs(5)).await.unwrap();
        let Connected::Tcp(socket) = stream.socket() else { panic!("not TCP") };
        let socket = SockRef::from(socket);
        assert!(!socket.keepalive().unwrap());
        stream.socket().ask_for_host(&DeadHosts::default()).unwrap();
        assert!(socket.keepalive().unwrap());
    }

    #[test]
    fn a_port_in_use_is_an_error() {
        let first = bind(&([127, 0, 0, 1], 0).into()).unwrap();
        assert_eq!(bind(&first.address().unwrap()).err().unwrap().kind(), io::ErrorKind::AddrInUse);
    }
}
