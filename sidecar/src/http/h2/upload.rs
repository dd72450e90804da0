//! A body in the framing of HTTP/1.1 into a stream: data, trailers, the end of the stream with the last of them. Takes as much
//! as the window has room for.

use std::{
    io,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::SendStream;
use http::HeaderMap;

use super::{broken::describe, fields};
use crate::http::message::{Chunks, Part};

/// What follows the last data of most bodies, so that the end of the stream needs no frame of its own.
const END: &[u8] = b"\r\n0\r\n\r\n";

/// Trailers of one body.
const MOST_TRAILERS: usize = 64;

/// One body on its way into a stream.
#[derive(Debug)]
pub(super) struct Upload {
    stream: SendStream<Bytes>,
    rest: Rest,
}

/// What is still to come.
#[derive(Debug)]
pub(super) enum Rest {
    /// So many bytes, at least one.
    Length(u64),
    /// Chunks, and what was read of their coding since the last data.
    Chunks(Chunks, Vec<u8>),
    Nothing,
}

impl Rest {
    pub(super) fn chunks() -> Self {
        Self::Chunks(Chunks::default(), Vec::new())
    }
}

impl Upload {
    pub(super) fn new(stream: SendStream<Bytes>, rest: Rest) -> Self {
        Self { stream, rest }
    }

    /// The stream was ended.
    pub(super) fn is_ended(&self) -> bool {
        matches!(self.rest, Rest::Nothing)
    }

    pub(super) fn stream(&mut self) -> &mut SendStream<Bytes> {
        &mut self.stream
    }

    /// Takes some of the bytes; ready with at least one of them. What follows the body is an error.
    pub(super) fn poll_write(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.rest {
            Rest::Length(left) => {
                let wanted = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                let room = ready!(poll_room(&mut self.stream, context, wanted))?;
                *left -= room as u64;
                let last = *left == 0;
                send(&mut self.stream, &bytes[..room], last)?;
                if last {
                    self.rest = Rest::Nothing;
                }
                Poll::Ready(Ok(room))
            }
            Rest::Chunks(..) => self.poll_chunks(context, bytes),
            Rest::Nothing => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    fn poll_chunks(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = 0;
        while let Rest::Chunks(chunks, coding) = &mut self.rest
            && taken < bytes.len()
        {
            let mut given = &bytes[taken..];
            let data = usize::try_from(chunks.data_left()).unwrap_or(usize::MAX).min(given.len());
            if data > 0 {
                match poll_room(&mut self.stream, context, data) {
                    Poll::Ready(room) => given = &given[..room?],
                    Poll::Pending if taken > 0 => break,
                    Poll::Pending => return Poll::Pending,
                }
            }
            let malformed = |_| io::Error::from(io::ErrorKind::InvalidData);
            match chunks.step(given).map_err(malformed)? {
                Part::Data(count) => {
                    coding.clear();
                    taken += count;
                    let last = chunks.data_left() == 0 && bytes[taken..].starts_with(END);
                    send(&mut self.stream, &given[..count], last)?;
                    if last {
                        self.rest = Rest::Nothing;
                        taken += END.len();
                    }
                }
                Part::Coding(count) => {
                    coding.extend_from_slice(&given[..count]);
                    taken += count;
                }
                Part::End(count) => {
                    coding.extend_from_slice(&given[..count]);
                    taken += count;
                    let trailers = trailers(coding)?;
                    self.rest = Rest::Nothing;
                    if trailers.is_empty() {
                        send(&mut self.stream, &[], true)?;
                    } else {
                        self.stream.send_trailers(trailers).map_err(describe)?;
                    }
                }
            }
        }
        Poll::Ready(Ok(taken))
    }
}

/// Waits for room in the window, and gives how much of what is wanted there is.
fn poll_room(
    stream: &mut SendStream<Bytes>,
    context: &mut Context<'_>,
    wanted: usize,
) -> Poll<io::Result<usize>> {
    stream.reserve_capacity(wanted);
    loop {
        match stream.capacity() {
            0 => match ready!(stream.poll_capacity(context)) {
                Some(room) => room.map_err(describe)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            },
            room => return Poll::Ready(Ok(room.min(wanted))),
        };
    }
}

fn send(stream: &mut SendStream<Bytes>, data: &[u8], last: bool) -> io::Result<()> {
    stream.send_data(Bytes::copy_from_slice(data), last).map_err(describe)
}

/// The trailers at the end of a body, of which `coding` is all that followed the last data.
fn trailers(coding: &[u8]) -> io::Result<HeaderMap> {
    let coding = coding.strip_prefix(b"\r\n").unwrap_or(coding);
    let start = memchr::memchr(b'\n', coding).map_or(coding.len(), |at| at + 1);
    let mut headers = [httparse::EMPTY_HEADER; MOST_TRAILERS];
    let parsed = httparse::parse_headers(&coding[start..], &mut headers);
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let Ok(httparse::Status::Complete((_, headers))) = parsed else { return Err(invalid()) };
    let mut trailers = HeaderMap::new();
    for header in headers {
        let value = Bytes::copy_from_slice(header.value);
        fields::append(&mut trailers, header.name, value).ok_or_else(invalid)?;
    }
    Ok(trailers)
}
