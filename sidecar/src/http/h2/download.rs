//! Bytes of HTTP/1.1 out of a stream: a head, its body as it comes, in chunks where it has no length, trailers. The window opens
//! by what was taken.

use std::{
    io::Write as _,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use h2::RecvStream;
use http::HeaderMap;
use tokio::io::ReadBuf;

/// How a body is told from what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// By a length that its head tells.
    Plain,
    Chunks,
}

/// One message on its way out of a stream.
#[derive(Debug)]
pub(super) struct Download {
    /// Heads, and what is put around the body.
    text: Vec<u8>,
    sent: usize,
    data: Bytes,
    /// Bytes of the frame that `data` is the rest of; its window opens when all of it is gone.
    held: usize,
    /// None once its end has come.
    body: Option<RecvStream>,
    coding: Coding,
}

impl Download {
    pub(super) fn new() -> Self {
        Self { text: Vec::new(), sent: 0, data: Bytes::new(), held: 0, body: None, coding: Coding::Plain }
    }

    /// Where heads are written to.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// What follows the text.
    pub(super) fn follow(&mut self, body: RecvStream, coding: Coding) {
        (self.body, self.coding) = (Some(body), coding);
    }

    /// All of it was taken.
    pub(super) fn is_ended(&self) -> bool {
        self.body.is_none() && self.sent == self.text.len()
    }

    /// Gives what there is. Ready with nothing when all of it was taken.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), h2::Error>> {
        let before = buffer.filled().len();
        loop {
            self.give(buffer)?;
            if buffer.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            if !self.text.is_empty() {
                continue;
            }
            let Some(body) = &mut self.body else { return Poll::Ready(Ok(())) };
            let polled = match body.poll_data(context) {
                Poll::Ready(Some(Ok(data))) => {
                    self.begin(data);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
                Poll::Ready(None) => body.poll_trailers(context),
                Poll::Pending => Poll::Pending,
            };
            match polled {
                // An error is there the next time too.
                Poll::Pending | Poll::Ready(Err(_)) if buffer.filled().len() > before => {
                    return Poll::Ready(Ok(()));
                }
                polled => self.end(ready!(polled)?),
            }
        }
    }

    /// Copies text and data, as far as there is room.
    fn give(&mut self, buffer: &mut ReadBuf<'_>) -> Result<(), h2::Error> {
        let text = &self.text[self.sent..];
        let count = text.len().min(buffer.remaining());
        buffer.put_slice(&text[..count]);
        self.sent += count;
        if self.sent < self.text.len() {
            return Ok(());
        }
        self.text.clear();
        self.sent = 0;
        let count = self.data.len().min(buffer.remaining());
        buffer.put_slice(&self.data[..count]);
        self.data.advance(count);
        if self.held > 0 && self.data.is_empty() {
            if let Some(body) = &mut self.body {
                body.flow_control().release_capacity(self.held)?;
            }
            self.held = 0;
            if self.coding == Coding::Chunks {
                self.text.extend_from_slice(b"\r\n");
            }
        }
        Ok(())
    }

    fn begin(&mut self, data: Bytes) {
        // An empty chunk would end the body.
        if self.coding == Coding::Chunks && !data.is_empty() {
            // Writing to a Vec cannot fail.
            let _ = write!(self.text, "{:x}\r\n", data.len());
        }
        self.held = data.len();
        self.data = data;
    }

    fn end(&mut self, trailers: Option<HeaderMap>) {
        self.body = None;
        if self.coding == Coding::Plain {
            return;
        }
        self.text.extend_from_slice(b"0\r\n");
        for (name, value) in trailers.iter().flatten() {
            line(&mut self.text, name.as_str(), value.as_bytes());
        }
        self.text.extend_from_slice(b"\r\n");
    }
}

/// Writes one field.
pub(super) fn line(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}
