//! From a backend to the client of its session.

use std::{
    os::fd::AsFd,
    rc::{Rc, Weak},
};

use tokio::{
    io::Interest,
    task::{spawn_local, yield_now},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Thread,
    receive::{receive, with_buffers},
};
use crate::{
    l4::udp::{
        metrics::Cause,
        send::{self, Cursor, Piece, Sent, Way},
        session::Line,
    },
    net::datagrams::{BATCH, To},
};

impl Thread {
    pub(super) fn bring_answers(self: &Rc<Self>, line: &Rc<Line>) -> AbortOnDropHandle<()> {
        AbortOnDropHandle::new(spawn_local(bring_answers(Rc::downgrade(self), Rc::clone(line))))
    }

    /// Takes one batch of answers back to the client. True if there is more.
    fn answer_batch(&self, line: &Line, interest: Interest) -> bool {
        with_buffers(|batch| {
            let full = match receive(&line.socket, interest, batch) {
                Ok(full) => full,
                Err(error) => {
                    line.broke(&error);
                    return false;
                }
            };
            let mut pieces = [Piece::default(); BATCH];
            let mut count = 0;
            for message in batch.iter() {
                let piece = Piece::new(message.bytes, message.segment);
                if !line.is_peer(message.from) {
                    self.counters.dropped(Cause::Stranger, piece.datagrams());
                } else if message.cut {
                    self.counters.dropped(Cause::Truncated, piece.datagrams());
                } else {
                    pieces[count] = piece;
                    count += 1;
                }
            }
            let pieces = &pieces[..count];
            if !pieces.is_empty() {
                self.answer(line, pieces);
            }
            full
        })
    }

    fn answer(&self, line: &Line, pieces: &[Piece<'_>]) {
        let datagrams = pieces.iter().map(Piece::datagrams).sum();
        line.answered(datagrams, pieces.iter().map(Piece::bytes).sum());
        let to = To { address: Some(line.client.address), from: line.client.own };
        let way = Way { socket: self.socket.as_fd(), to, segments: &line.segments_back };
        let (mut at, mut sent) = (Cursor::default(), Sent::default());
        if let Err(error) = send::send(&way, pieces, &mut at, &mut sent) {
            tracing::debug!(listener = %self.listener, client = %line.client.address, %error, "a client cannot be reached");
            self.counters.dropped(Cause::Unreachable, send::left(pieces, at));
        }
        self.counters.not_sent(&sent);
        let now = Instant::now();
        self.sessions.borrow_mut().touch(line.place.get(), now);
        self.publish(Some(now));
    }
}

async fn bring_answers(thread: Weak<Thread>, line: Rc<Line>) {
    while let Ok(ready) = line.socket.ready(Interest::READABLE | Interest::ERROR).await {
        let Some(thread) = thread.upgrade() else { return };
        // One at a time: what is not ready any more is told for one alone.
        let interest = if ready.is_error() { Interest::ERROR } else { Interest::READABLE };
        let more = thread.answer_batch(&line, interest);
        drop(thread);
        if more {
            yield_now().await;
        }
    }
}
