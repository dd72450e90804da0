//! One direction of a connection: read -> write, until the source ends, and then the sink is told so.
//!
//! Memory is held only while there are bytes to give: a buffer of the thread's pool at first, and a pipe once reads show that
//! much is on its way, so that small messages cost no pipe and large ones no copy.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use super::cancel::Learner;
use crate::net::{
    Stream,
    buffer::{Buffer, LARGE, SMALL},
    pipe::Pipe,
    postgres::{LONGEST_OFFER, Offer},
};

/// Bytes that came in large pieces, one after the other, from which on a pipe is worth its calls.
const SPLICED: u64 = 256 * 1024;

/// What comes in smaller pieces is cheaper to copy.
const PIECE: usize = 8 * 1024;

/// Pieces one after the other that are smaller than that. A stream has one now and then, where its sender paused.
const SMALL_PIECES: u8 = 4;

/// After no pipe was to be had, so many bytes are copied before the next try.
const COPIED: u64 = 4 * 1024 * 1024;

pub(super) struct Flow {
    held: Held,
    stage: Stage,
    /// Bytes that the source has given.
    moved: u64,
    /// Bytes since the last row of small pieces.
    run: u64,
    /// The last pieces that were small.
    small: u8,
    /// The run from which on a pipe is asked for.
    worth: u64,
    /// The sink has bytes that it may not have sent yet, as TLS may.
    dirty: bool,
    /// An end without a byte before it goes on like any other.
    may_be_empty: bool,
    /// The sink is closed when this ends, which tells it the same.
    closes: bool,
    /// Sees the bytes until there is a pipe.
    learner: Option<Box<Learner>>,
    /// The source's first message, which the sink is told for plain text.
    offer: Option<Offer>,
}

#[derive(Debug)]
enum Held {
    Nothing,
    Bytes(Buffer),
    Piped(Pipe),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// The source has ended, and the sink is yet to be told.
    Ending,
    Ended,
}

/// Whose fault it is that no more bytes move.
#[derive(Debug, thiserror::Error)]
pub(super) enum FlowError {
    #[error("reading failed: {0}")]
    Source(io::Error),
    #[error("writing failed: {0}")]
    Sink(io::Error),
    /// The sink has not been told.
    #[error("the connection ended without a byte")]
    Empty,
}

impl Flow {
    pub(super) fn new() -> Self {
        Self {
            held: Held::Nothing,
            stage: Stage::Open,
            moved: 0,
            run: 0,
            small: 0,
            worth: SPLICED,
            dirty: false,
            may_be_empty: true,
            closes: false,
            learner: None,
            offer: None,
        }
    }

    /// Begins with bytes that the source has given already.
    pub(super) fn begun(said: &[u8]) -> Self {
        let buffer = filled(said);
        Self { moved: buffer.filled().len() as u64, held: Held::Bytes(buffer), ..Self::new() }
    }

    /// Shows the first bytes to somebody on their way.
    pub(super) fn seen_by(self, learner: Option<Learner>) -> Self {
        Self { learner: learner.map(Box::new), ..self }
    }

    /// Shortens what the source offers first to what a sink in plain text can take. The source is a server of PostgreSQL's.
    pub(super) fn shortens_offer(self, shortens: bool) -> Self {
        Self { offer: shortens.then(Offer::default), ..self }
    }

    /// Tells of an end without a byte by [`FlowError::Empty`], until it [`may_be_empty`](Self::may_be_empty).
    pub(super) fn not_empty(self) -> Self {
        Self { may_be_empty: false, ..self }
    }

    pub(super) fn may_be_empty(&mut self) {
        self.may_be_empty = true;
    }

    /// The other direction has ended: with this one, both connections are closed.
    pub(super) fn is_last(&mut self) {
        self.closes = true;
    }

    /// Bytes that the source has given.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Moves what can be moved. Ready once the source has ended and the sink was told so.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
    ) -> Poll<Result<(), FlowError>> {
        loop {
            ready!(self.poll_give(context, source, sink)).map_err(FlowError::Sink)?;
            match self.stage {
                Stage::Open => ready!(self.poll_take(context, source, sink))?,
                Stage::Ending if self.moved == 0 && !self.may_be_empty => {
                    return Poll::Ready(Err(FlowError::Empty));
                }
                Stage::Ending if self.closes && !sink.is_tls() => self.stage = Stage::Ended,
                Stage::Ending => {
                    let shut = ready!(Pin::new(&mut *sink).poll_shutdown(context));
                    self.stage = Stage::Ended;
                    match shut {
                        // It has gone, and needs not be told.
                        Err(error) if error.kind() == io::ErrorKind::NotConnected => {}
                        shut => shut.map_err(FlowError::Sink)?,
                    }
                }
                Stage::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    /// Ready when the sink has taken everything.
    fn poll_give(
        &mut self,
        context: &mut Context<'_>,
        source: &Stream,
        sink: &mut Stream,
    ) -> Poll<io::Result<()>> {
        match &mut self.held {
            Held::Nothing => {}
            Held::Bytes(buffer) => {
                while !buffer.is_empty() {
                    let count = ready!(Pin::new(&mut *sink).poll_write(context, buffer.filled()))?;
                    if count == 0 {
                        return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                    }
                    self.dirty = true;
                    buffer.consume(count);
                }
            }
            Held::Piped(pipe) => {
                let (Some(from), Some(to)) = (source.as_tcp(), sink.as_tcp()) else {
                    return Poll::Ready(Err(no_socket()));
                };
                while !pipe.is_empty() {
                    if to.poll_write_ready(context)?.is_pending() {
                        pipe.raise_low_water(from);
                        return Poll::Pending;
                    }
                    match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return Poll::Ready(Err(error)),
                    }
                }
                pipe.reset_low_water(from)?;
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes one piece from the source.
    fn poll_take(
        &mut self,
        context: &mut Context<'_>,
        source: &mut Stream,
        sink: &mut Stream,
    ) -> Poll<Result<(), FlowError>> {
        let taken = match self.poll_piece(context, source, sink) {
            Poll::Ready(taken) => taken.map_err(FlowError::Source)?,
            Poll::Pending => {
                self.held = Held::Nothing;
                if self.dirty {
                    // Nothing else may come for long.
                    ready!(Pin::new(sink).poll_flush(context)).map_err(FlowError::Sink)?;
                    self.dirty = false;
                }
                return Poll::Pending;
            }
        };
        if taken == 0 {
            self.held = Held::Nothing;
            self.stage = Stage::Ending;
        }
        self.moved += taken as u64;
        self.run += taken as u64;
        self.small = if taken < PIECE { self.small + 1 } else { 0 };
        if self.small == SMALL_PIECES {
            (self.run, self.small) = (0, 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_piece(
        &mut self,
        context: &mut Context<'_>,
        source: &mut Stream,
        sink: &Stream,
    ) -> Poll<io::Result<usize>> {
        if self.run < SPLICED {
            self.worth = SPLICED;
        }
        if self.run >= self.worth && !self.is_piped(source, sink) {
            self.worth = self.run + COPIED;
        }
        if let (Held::Piped(pipe), Some(from)) = (&mut self.held, source.as_tcp()) {
            if self.run >= SPLICED {
                loop {
                    ready!(from.poll_read_ready(context))?;
                    match from.try_io(Interest::READABLE, || pipe.fill(from, u64::MAX)) {
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        filled => return Poll::Ready(filled),
                    }
                }
            }
            self.held = Held::Nothing;
        }
        if self.offer.is_some() {
            return self.poll_offer(context, source);
        }
        let mut buffer = self.buffer();
        let mut room = ReadBuf::new(buffer.spare());
        ready!(Pin::new(source).poll_read(context, &mut room))?;
        let count = room.filled().len();
        if let Some(learner) = &mut self.learner {
            learner.see(room.filled());
        }
        buffer.added(count);
        self.held = Held::Bytes(buffer);
        Poll::Ready(Ok(count))
    }

    /// Takes the source's first message, and not a byte more. Short of its end if that is the end of all.
    fn poll_offer(&mut self, context: &mut Context<'_>, source: &mut Stream) -> Poll<io::Result<usize>> {
        let Some(offer) = &mut self.offer else { return Poll::Ready(Ok(0)) };
        let mut room = [0; LONGEST_OFFER];
        while let wanted @ 1.. = offer.wanted() {
            let mut room = ReadBuf::new(&mut room[..wanted]);
            ready!(Pin::new(&mut *source).poll_read(context, &mut room))?;
            if room.filled().is_empty() {
                break;
            }
            offer.hear(room.filled());
        }
        let next = offer.goes_on().then(Offer::default);
        let message = mem::replace(&mut self.offer, next).map_or_else(Vec::new, Offer::for_plain_text);
        if let Some(learner) = &mut self.learner {
            learner.see(&message);
        }
        self.held = Held::Bytes(filled(&message));
        Poll::Ready(Ok(message.len()))
    }

    /// Whether there is a pipe now.
    fn is_piped(&mut self, source: &Stream, sink: &Stream) -> bool {
        if !matches!(self.held, Held::Piped(_)) {
            let plain = source.as_tcp().is_some() && sink.as_tcp().is_some();
            let Some(pipe) = plain.then(Pipe::take).flatten() else { return false };
            self.held = Held::Piped(pipe);
        }
        true
    }

    /// An empty buffer, larger where much comes.
    fn buffer(&mut self) -> Buffer {
        let size = if self.run >= SPLICED { LARGE } else { SMALL };
        match mem::replace(&mut self.held, Held::Nothing) {
            Held::Bytes(buffer) if buffer.size() == size => buffer,
            _ => Buffer::take(size),
        }
    }
}

/// A small buffer with these bytes, up to its size.
fn filled(bytes: &[u8]) -> Buffer {
    let mut buffer = Buffer::take(SMALL);
    let count = bytes.len().min(buffer.spare().len());
    buffer.spare()[..count].copy_from_slice(&bytes[..count]);
    buffer.added(count);
    buffer
}

/// Pipes are for sockets alone.
fn no_socket() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, "no socket to splice to")
}
