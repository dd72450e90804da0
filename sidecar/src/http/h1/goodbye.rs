//! How a connection of a client ends, so that the last answer is not lost with it, nor taken for whole when it is not.

use std::{future::poll_fn, task::Poll, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::client::Client;
use crate::net::{buffer::SMALL, pipe};

/// A client that is still sending a body that nobody wants gets this long, and this many bytes, to see the answer: closing
/// with unread bytes is a reset, which takes away an answer that has not been read.
pub(super) const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 16 << 20;

/// How a request left its connection.
pub(super) enum Next {
    /// Another may follow.
    Request,
    /// The answer is complete, and the last one.
    Close,
    /// The answer is complete, and the client is still sending.
    Linger,
    /// The answer broke off: the connection is reset, since a clean end could pass for the end of it.
    Abort,
    /// Nobody is there any more.
    Gone,
}

impl Client {
    /// Ends the connection as the last request has left it.
    pub(super) async fn end(&mut self, next: Next) {
        match next {
            Next::Linger => {
                if self.say_goodbye().await {
                    self.linger().await;
                }
            }
            Next::Close => {
                self.say_goodbye().await;
            }
            Next::Abort | Next::Gone | Next::Request => {}
        }
    }

    /// Ends what is sent. Within TLS that is a message, for which a client that has stopped reading leaves no room.
    async fn say_goodbye(&mut self) -> bool {
        matches!(timeout(LINGER, self.wire.stream.shutdown()).await, Ok(Ok(())))
    }

    async fn linger(&mut self) {
        if let Some(stream) = self.wire.stream.as_tcp() {
            // A socket that cannot do it tells by and by.
            let _ = pipe::reset_low_water(stream);
        }
        self.alarm.set_after(LINGER);
        let mut left = LINGER_BYTES;
        poll_fn(|context| {
            loop {
                let pending = self.wire.input().len();
                self.wire.consume(pending);
                match self.wire.poll_fill(context, SMALL, SMALL) {
                    Poll::Ready(Ok(count @ 1..)) if count < left => left -= count,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.alarm.poll(context),
                }
            }
        })
        .await;
    }
}
