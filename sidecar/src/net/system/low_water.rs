//! How much has to be there before a socket tells its reader.

use std::{
    ffi::c_int,
    io, mem,
    os::fd::{AsFd, AsRawFd},
    ptr,
};

/// From now on a TCP socket is readable with so many bytes, or at its end. The kernel takes at most half of the receive buffer,
/// tells of what is there already, and of less when the sender may send no more: nobody waits in vain for bytes that cannot come
/// (`tcp_set_rcvlowat` in Linux).
pub(crate) fn set(socket: impl AsFd, bytes: c_int) -> io::Result<()> {
    // SAFETY: the value is an int on the stack, which lives longer than the call, with its true length beside it.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVLOWAT,
            ptr::from_ref(&bytes).cast(),
            mem::size_of::<c_int>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
