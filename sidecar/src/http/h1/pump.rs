//! A body on its way from one connection to another: read -> find its end -> write. At most one buffer is read ahead, so that
//! a slow reader slows the writer down. Long bodies of known length go through a pipe, without a copy.

use std::{
    io::{self, Write as _},
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::io::Interest;

use super::wire::Wire;
use crate::{
    http::message::{BadChunks, Chunks, Framing, Part},
    net::{
        buffer::{Buffer, LARGE, SMALL},
        pipe::Pipe,
    },
};

/// What is shorter than this is cheaper to copy.
const SPLICED: u64 = 256 * 1024;

/// One body's transfer.
#[derive(Debug)]
pub(super) struct Pump {
    rest: Rest,
    recode: Recode,
    /// Bytes at the front of the source's input that belong to the body, or of its coding, and may go out.
    ready: usize,
    /// Bytes that have gone out, coding included.
    moved: u64,
    pipe: Option<Pipe>,
    /// No pipe was to be had.
    copies: bool,
    /// Bytes of a body in chunks, at most: a length is known before anything is moved.
    most: u64,
    /// What the sink does not take stays in the source, so that it can go elsewhere.
    keeps: bool,
    /// The end of the body, taken over from a source that is needed no more.
    tail: Option<Buffer>,
    /// The source has sent more than the body.
    surplus: bool,
}

/// How much of the body is still to be read.
#[derive(Debug)]
enum Rest {
    Length(u64),
    Chunks(Chunks),
    UntilClose,
    Nothing,
}

/// What is done to the coding on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recode {
    /// It goes on as it came.
    Keep,
    /// Into chunks, so that its end can be told from a break.
    IntoChunks,
    /// Out of chunks, for those who do not know them.
    OutOfChunks,
}

/// Why a body did not come to its end, by whose fault.
#[derive(Debug, thiserror::Error)]
pub(super) enum PumpError {
    #[error("reading failed: {0}")]
    Source(io::Error),
    #[error("writing failed: {0}")]
    Sink(io::Error),
    #[error("the request was to be over after {0:?}")]
    Overdue(Duration),
    #[error("the connection ended in the middle of the body")]
    CutShort,
    #[error("the body is larger than {0} bytes")]
    TooLarge(u64),
    #[error(transparent)]
    Chunks(#[from] BadChunks),
}

impl Pump {
    pub(super) fn new(framing: Framing, recode: Recode) -> Self {
        let rest = match framing {
            Framing::None => Rest::Nothing,
            Framing::Length(length) => Rest::Length(length),
            Framing::Chunked => Rest::Chunks(Chunks::default()),
            Framing::UntilClose => Rest::UntilClose,
        };
        Self {
            rest,
            recode,
            ready: 0,
            moved: 0,
            pipe: None,
            copies: false,
            most: u64::MAX,
            keeps: false,
            tail: None,
            surplus: false,
        }
    }

    /// Takes nothing from the source before the sink has taken it, and is ready when that has taken all.
    pub(super) fn keeping(self) -> Self {
        Self { keeps: true, ..self }
    }

    /// Fails before a chunk that makes the body larger than this.
    pub(super) fn up_to(self, most: u64) -> Self {
        Self { most, ..self }
    }

    /// Bytes that have left the source.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// Bytes of the body that have come, coding included.
    pub(super) fn received(&self) -> u64 {
        self.moved + self.ready as u64
    }

    /// The source has sent more than the body: whatever follows cannot be trusted.
    pub(super) fn has_surplus(&self) -> bool {
        self.surplus
    }

    /// The whole body was read from the source.
    pub(super) fn is_read(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    /// There is something that the sink has not taken: whoever reads there keeps the source waiting.
    pub(super) fn waits_for(&self, sink: &Wire) -> bool {
        self.ready > 0 || !sink.is_flushed() || self.pipe.as_ref().is_some_and(|pipe| !pipe.is_empty())
    }

    /// Moves what can be moved. Ready when the body has been read to its end: the source is free, and what is left of the body
    /// goes out by [`Pump::poll_rest`].
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        source: &mut Wire,
        sink: &mut Wire,
    ) -> Poll<Result<(), PumpError>> {
        loop {
            self.scan(source, sink)?;
            if self.is_read() && !self.keeps && self.pipe.as_ref().is_none_or(Pipe::is_empty) {
                self.surplus = source.input().len() > self.ready;
                self.tail = source.take_input();
                return Poll::Ready(Ok(()));
            }
            if self.ready > 0 || !sink.is_flushed() {
                let body = &source.input()[..self.ready];
                let taken = ready!(sink.poll_send(context, body)).map_err(PumpError::Sink)?;
                self.take(source, taken);
                continue;
            }
            if self.is_read() && self.pipe.as_ref().is_none_or(Pipe::is_empty) {
                return Poll::Ready(Ok(()));
            }
            if self.is_spliced(source, sink) {
                ready!(self.poll_splice(context, source, sink))?;
                continue;
            }
            let size = if self.is_long() { LARGE } else { SMALL };
            if ready!(source.poll_fill(context, size, size)).map_err(PumpError::Source)? == 0 {
                self.end(sink)?;
            }
        }
    }

    /// Sends what is left of the body, and all that was written to the sink before.
    pub(super) fn poll_rest(&mut self, context: &mut Context<'_>, sink: &mut Wire) -> Poll<io::Result<()>> {
        loop {
            let tail = self.tail.as_ref().map_or(&[][..], |tail| &tail.filled()[..self.ready]);
            let taken = match sink.append(tail) {
                0 => ready!(sink.poll_send(context, tail))?,
                appended => appended,
            };
            if let Some(tail) = &mut self.tail {
                tail.consume(taken);
            }
            self.ready -= taken;
            self.moved += taken as u64;
            if self.ready == 0 && sink.is_flushed() {
                self.tail = None;
                return Poll::Ready(Ok(()));
            }
        }
    }

    fn take(&mut self, source: &mut Wire, count: usize) {
        source.consume(count);
        self.ready -= count;
        self.moved += count as u64;
    }

    /// Finds what of the input belongs to the body.
    fn scan(&mut self, source: &mut Wire, sink: &mut Wire) -> Result<(), PumpError> {
        let input = &source.input()[self.ready..];
        if input.is_empty() {
            return Ok(());
        }
        match (&mut self.rest, self.recode) {
            (Rest::Nothing, _) => {}
            (Rest::Length(left), _) => {
                let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
                self.ready += length;
                *left -= length as u64;
                if *left == 0 {
                    self.rest = Rest::Nothing;
                }
            }
            (Rest::UntilClose, Recode::IntoChunks) => {
                let length = input.len();
                write_chunk(sink.output.bytes(), input);
                source.consume(length);
                self.moved += length as u64;
            }
            (Rest::UntilClose, _) => self.ready += input.len(),
            (Rest::Chunks(chunks), Recode::OutOfChunks) => match chunks.step(input)? {
                Part::Data(length) => {
                    sink.output.bytes().extend_from_slice(&input[..length]);
                    source.consume(length);
                    self.moved += length as u64;
                }
                Part::Coding(length) => source.consume(length),
                Part::End(length) => {
                    source.consume(length);
                    self.rest = Rest::Nothing;
                }
            },
            (Rest::Chunks(chunks), _) => {
                let (length, ended) = chunks.scan(input)?;
                if chunks.told() > self.most {
                    return Err(PumpError::TooLarge(self.most));
                }
                self.ready += length;
                if ended {
                    self.rest = Rest::Nothing;
                }
            }
        }
        Ok(())
    }

    /// The source has ended.
    fn end(&mut self, sink: &mut Wire) -> Result<(), PumpError> {
        if !matches!(self.rest, Rest::UntilClose) {
            return Err(PumpError::CutShort);
        }
        self.rest = Rest::Nothing;
        if self.recode == Recode::IntoChunks {
            sink.output.bytes().extend_from_slice(b"0\r\n\r\n");
        }
        Ok(())
    }

    fn is_long(&self) -> bool {
        match self.rest {
            Rest::Length(left) => left > SMALL as u64 * 2,
            Rest::Chunks(_) | Rest::UntilClose => self.moved > LARGE as u64,
            Rest::Nothing => false,
        }
    }

    /// Whether the next bytes go through the pipe, which is fetched for that.
    fn is_spliced(&mut self, source: &Wire, sink: &Wire) -> bool {
        if self.pipe.is_some() {
            return true;
        }
        let long = matches!(self.rest, Rest::Length(left) if left >= SPLICED);
        if !long || self.copies || source.stream.as_tcp().is_none() || sink.stream.as_tcp().is_none() {
            return false;
        }
        self.pipe = Pipe::take();
        self.copies = self.pipe.is_none();
        !self.copies
    }

    fn poll_splice(
        &mut self,
        context: &mut Context<'_>,
        source: &Wire,
        sink: &Wire,
    ) -> Poll<Result<(), PumpError>> {
        let (Some(pipe), Some(from), Some(to)) =
            (&mut self.pipe, source.stream.as_tcp(), sink.stream.as_tcp())
        else {
            return Poll::Ready(Ok(()));
        };
        if let Rest::Length(left) = &mut self.rest
            && pipe.is_empty()
        {
            ready!(from.poll_read_ready(context)).map_err(PumpError::Source)?;
            match from.try_io(Interest::READABLE, || pipe.fill(from, *left)) {
                Ok(0) => return Poll::Ready(Err(PumpError::CutShort)),
                Ok(count) => *left -= count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Poll::Ready(Ok(())),
                Err(error) => return Poll::Ready(Err(PumpError::Source(error))),
            }
            if *left == 0 {
                self.rest = Rest::Nothing;
            }
        }
        while !pipe.is_empty() {
            if to.poll_write_ready(context).map_err(PumpError::Sink)?.is_pending() {
                if !matches!(self.rest, Rest::Nothing) {
                    pipe.raise_low_water(from);
                }
                return Poll::Pending;
            }
            match to.try_io(Interest::WRITABLE, || pipe.drain(to)) {
                Ok(count) => self.moved += count as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(PumpError::Sink(error))),
            }
        }
        pipe.reset_low_water(from).map_err(PumpError::Source)?;
        if self.is_read() {
            self.pipe = None;
        }
        Poll::Ready(Ok(()))
    }
}

fn write_chunk(out: &mut Vec<u8>, data: &[u8]) {
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{:x}\r\n", data.len());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::UnixStream,
    };

    use super::*;

    fn wire() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Wire::new(crate::net::Stream::from(ours).into()), theirs)
    }

    /// Polls once, and expects that there is more to wait for.
    async fn is_pending(pump: &mut Pump, source: &mut Wire, sink: &mut Wire) -> bool {
        poll_fn(|context| Poll::Ready(pump.poll(context, source, sink).is_pending())).await
    }

    /// Lets everyone run until a condition holds.
    async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
        let holds = async {
            while !condition().await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), holds).await.expect(what);
    }

    #[tokio::test]
    async fn it_tells_whether_the_source_or_the_sink_is_waited_for() {
        let ((mut source, mut sender), (mut sink, mut receiver)) = (wire(), wire());
        let mut pump = Pump::new(Framing::Length(1 << 30), Recode::Keep).keeping();
        assert!(is_pending(&mut pump, &mut source, &mut sink).await);
        assert!(!pump.waits_for(&sink), "nothing has come yet");
        let body = vec![0; 1 << 20];
        let sending = tokio::spawn(async move { sender.write_all(&body).await.map(|()| sender) });
        until("a sink that is not read from is full", async || {
            is_pending(&mut pump, &mut source, &mut sink).await && pump.waits_for(&sink)
        })
        .await;
        let reading =
            tokio::spawn(async move { receiver.read_exact(&mut vec![0; 1 << 20]).await.map(|_| receiver) });
        until("all that came goes out", async || {
            is_pending(&mut pump, &mut source, &mut sink).await && pump.moved() == 1 << 20
        })
        .await;
        assert!(!pump.waits_for(&sink));
        let _open = (sending.await.unwrap().unwrap(), reading.await.unwrap().unwrap());
    }
}
