//! Options of sockets, each of which is one integer that the kernel reads during the call.

use std::{
    ffi::c_int,
    io, mem,
    os::fd::{AsFd, AsRawFd},
};

/// Lets the kernel put datagrams of one sender together, so that a message may hold several.
pub(crate) fn coalesce(socket: impl AsFd) -> io::Result<()> {
    set(socket, libc::SOL_UDP, libc::UDP_GRO, 1)
}

/// Has each message say which of the own addresses it was written to.
pub(crate) fn tell_destinations(socket: impl AsFd, ipv6: bool) -> io::Result<()> {
    if ipv6 {
        set(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

/// From now on a TCP socket is readable with so many bytes, or at its end; 1 is how it began. The kernel takes at most half of
/// the receive buffer, tells of what is there already, and of less when the sender may send no more: nobody waits in vain for
/// bytes that cannot come (`tcp_set_rcvlowat` in Linux).
pub(crate) fn set_low_water(socket: impl AsFd, bytes: c_int) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, libc::SO_RCVLOWAT, bytes)
}

fn set(socket: impl AsFd, level: c_int, option: c_int, value: c_int) -> io::Result<()> {
    let length = mem::size_of::<c_int>() as libc::socklen_t;
    // SAFETY: the value is an integer of the length that is said, outlives the call, and is only read.
    let result = unsafe {
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, (&raw const value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
