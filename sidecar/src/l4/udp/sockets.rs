//! Sockets as UDP listeners want them: one for each thread on the same address, and one for each session.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use crds::units::Address;
use socket2::{Domain, Protocol, Socket, Type};

use crate::net::options;

/// Asked for what waits to be read or sent; the kernel gives no more than net.core.rmem_max and wmem_max.
const FRONT_BUFFER: usize = 4 << 20;
const SESSION_BUFFER: usize = 1 << 20;

/// Opens `count` sockets on one address. The kernel gives all datagrams of a client to the same one.
///
/// The first one is bound alone, so that an address which another process has is an error; only then may the others join it.
pub(super) fn bind(address: &Address, count: usize) -> io::Result<(Vec<UdpSocket>, SocketAddr)> {
    let Some(address) = address.ip() else {
        return Err(io::Error::new(io::ErrorKind::Unsupported, "there is no UDP on Unix sockets"));
    };
    let first = open(address, FRONT_BUFFER)?;
    if address.ip().is_unspecified() {
        options::tell_destinations(&first, address.is_ipv6())?;
    }
    first.bind(&address.into())?;
    first.set_reuse_port(true)?;
    let first = UdpSocket::from(first);
    let address = first.local_addr()?;
    let mut sockets = vec![first];
    for _ in 1..count {
        let other = open(address, FRONT_BUFFER)?;
        if address.ip().is_unspecified() {
            options::tell_destinations(&other, address.is_ipv6())?;
        }
        other.set_reuse_port(true)?;
        other.bind(&address.into())?;
        sockets.push(other.into());
    }
    Ok((sockets, address))
}

/// Opens a socket that takes datagrams from this backend alone, but for those that come in before it is connected.
pub(super) fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = open(address, SESSION_BUFFER)?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

fn open(address: SocketAddr, buffer: usize) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(buffer)?;
    socket.set_send_buffer_size(buffer)?;
    if let Err(error) = options::coalesce(&socket) {
        tracing::debug!(%error, "the kernel does not put datagrams together");
    }
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Address {
        ([127, 0, 0, 1], 0).into()
    }

    #[test]
    fn every_thread_has_a_socket_on_the_one_address() {
        let (sockets, address) = bind(&loopback(), 3).unwrap();
        assert_eq!(sockets.len(), 3);
        assert!(sockets.iter().all(|socket| socket.local_addr().unwrap() == address));
        assert_ne!(address.port(), 0);
    }

    #[test]
    fn an_address_that_somebody_has_is_an_error() {
        let (_sockets, address) = bind(&loopback(), 2).unwrap();
        assert_eq!(bind(&address.into(), 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let alone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let taken = alone.local_addr().unwrap();
        assert_eq!(bind(&taken.into(), 2).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }
}
