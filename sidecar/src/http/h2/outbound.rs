//! A request to a backend on a stream of its own: the loop writes it in HTTP/1.1, and reads the answer so. Dropped early, it
//! takes the request back.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use http::{Method, uri::Scheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    broken::{Unsent, describe},
    download::{Coding, Download},
    fields::{self, Unread},
    link::Place,
    upload::{Rest, Upload},
};

/// What the loop has instead of a socket.
#[derive(Debug)]
pub(in crate::http) struct Outbound {
    sender: SendRequest<Bytes>,
    scheme: Scheme,
    request: State,
    /// Until the head of the answer is there.
    response: Option<ResponseFuture>,
    download: Download,
    /// A HEAD.
    bodiless: bool,
    /// Why the request was not sent, which is told to whoever reads too.
    unsent: Option<Unsent>,
    place: Place,
}

/// How far the request is.
#[derive(Debug)]
enum State {
    /// What has come of its head.
    Head(Vec<u8>),
    Body(Upload),
    Sent,
}

impl Outbound {
    pub(super) fn new(sender: SendRequest<Bytes>, scheme: Scheme, place: Place) -> Self {
        Self {
            sender,
            scheme,
            request: State::Head(Vec::new()),
            response: None,
            download: Download::new(),
            bodiless: false,
            unsent: None,
            place,
        }
    }

    /// Sends the head at the front of the bytes. Gives how many of them it had.
    fn poll_head(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let State::Head(begun) = &mut self.request else { return Poll::Ready(Ok(0)) };
        let before = begun.len();
        let whole = if before == 0 { bytes } else { &*[begun, bytes].concat() };
        let read = match fields::read_request(whole, &self.scheme) {
            Ok(read) => read,
            Err(Unread::Partial) => {
                begun.extend_from_slice(bytes);
                return Poll::Ready(Ok(bytes.len()));
            }
            Err(Unread::Malformed) => return Poll::Ready(Err(self.fails(Unsent::Unfit))),
        };
        if ready!(self.sender.poll_ready(context)).is_err() {
            return Poll::Ready(Err(self.fails(Unsent::GoingAway)));
        }
        self.bodiless = *read.head.method() == Method::HEAD;
        let ended = matches!(read.rest, Rest::Nothing);
        let Ok((response, stream)) = self.sender.send_request(read.head, ended) else {
            return Poll::Ready(Err(self.fails(Unsent::GoingAway)));
        };
        self.response = Some(response);
        self.request = if ended { State::Sent } else { State::Body(Upload::new(stream, read.rest)) };
        Poll::Ready(Ok(read.length - before))
    }

    fn fails(&mut self, unsent: Unsent) -> io::Error {
        self.unsent = Some(unsent);
        unsent.into()
    }

    /// Ready when the head of the answer, or an interim answer, stands in the download.
    fn poll_response(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(response) = &mut self.response else { return Poll::Pending };
        if let Poll::Ready(Some(Ok(interim))) = response.poll_informational(context) {
            fields::write_response(self.download.text(), &interim, true, false);
            return Poll::Ready(Ok(()));
        }
        let answered = ready!(Pin::new(response).poll(context)).map_err(describe)?;
        self.response = None;
        self.place.answered();
        let (parts, body) = answered.into_parts();
        let (head, ended) = (http::Response::from_parts(parts, ()), body.is_end_stream());
        let coding = fields::write_response(self.download.text(), &head, self.bodiless, ended);
        if !ended || coding == Coding::Chunks {
            self.download.follow(body, coding);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Outbound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if let Some(unsent) = this.unsent {
            return Poll::Ready(Err(unsent.into()));
        }
        if matches!(this.request, State::Head(_)) {
            return Poll::Pending;
        }
        if this.response.is_some() && this.download.is_ended() {
            ready!(this.poll_response(context))?;
        }
        this.download.poll_read(context, buffer).map_err(describe)
    }
}

impl AsyncWrite for Outbound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.request {
            State::Head(_) => self.poll_head(context, bytes),
            State::Body(body) => {
                let taken = ready!(body.poll_write(context, bytes))?;
                if body.is_ended() {
                    self.request = State::Sent;
                }
                Poll::Ready(Ok(taken))
            }
            State::Sent => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
