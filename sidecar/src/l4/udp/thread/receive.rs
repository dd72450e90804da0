//! Taking in a batch of datagrams, of clients or of a backend.

use std::{cell::RefCell, io};

use tokio::{io::Interest, net::UdpSocket};

use crate::net::datagrams::{BATCH, Batch};

thread_local! {
    /// One for all sockets of the thread: nothing stays in it between two calls.
    static BUFFERS: RefCell<Option<Batch>> = const { RefCell::new(None) };
}

pub(super) fn with_buffers<R>(work: impl FnOnce(&mut Batch) -> R) -> R {
    BUFFERS.with_borrow_mut(|buffers| work(buffers.get_or_insert_with(Batch::new)))
}

/// Takes in what is there. True if there may be more: with less than a full batch the socket was read to its end, and the
/// next datagram makes it ready again.
pub(super) fn receive(socket: &UdpSocket, interest: Interest, batch: &mut Batch) -> io::Result<bool> {
    batch.clear();
    let mut taken = 0;
    let result = socket.try_io(interest, || {
        taken = batch.receive(socket)?;
        if taken < BATCH { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}
