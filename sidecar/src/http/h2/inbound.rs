//! A lane of a client's HTTP/2 connection: the loop of HTTP/1.1 reads from it one request after the other, and writes their
//! answers to it. Between requests a lane stands in the row of idle ones, and the last one there gets the next request.

use std::{
    cell::{Cell, RefCell},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{Reason, RecvStream, server::SendResponse};
use http::{Method, Request};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    broken::describe,
    download::Download,
    fields::{self, Malformed, Unread},
    upload::{Rest, Upload},
};

/// What the loop has instead of a socket.
#[derive(Debug)]
pub(in crate::http) struct Inbound {
    desk: Rc<Desk>,
    job: Option<Job>,
}

/// Where a lane gets its requests.
#[derive(Debug)]
pub(super) struct Desk {
    next: RefCell<Option<Job>>,
    waker: RefCell<Option<Waker>>,
    /// It stands in the row of idle lanes.
    listed: Cell<bool>,
    /// The lane takes no more requests.
    closed: Cell<bool>,
    lanes: Rc<Lanes>,
}

/// The lanes of one connection.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    idle: RefCell<Vec<Rc<Desk>>>,
    /// Requests under way.
    busy: Cell<usize>,
    /// Requests that the client took back before they were answered, less those that were answered.
    taken_back: Cell<u32>,
}

/// A request and its answer.
#[derive(Debug)]
pub(super) struct Job {
    request: Download,
    respond: SendResponse<Bytes>,
    answer: Answer,
    /// A HEAD.
    bodiless: bool,
    busy: Busy,
}

#[derive(Debug)]
enum Answer {
    /// What has come of its head.
    Head(Vec<u8>),
    Body(Upload),
    Complete,
}

/// Counts a request.
#[derive(Debug)]
struct Busy(Rc<Lanes>);

impl Lanes {
    pub(super) fn busy(&self) -> usize {
        self.busy.get()
    }

    pub(super) fn taken_back(&self) -> u32 {
        self.taken_back.get()
    }

    /// Gives the request to the lane that was idle last. The lane that has to be opened for it otherwise.
    pub(super) fn give(self: &Rc<Self>, job: Job) -> Option<Inbound> {
        while let Some(desk) = self.idle.borrow_mut().pop() {
            desk.listed.set(false);
            if !desk.closed.get() {
                desk.next.replace(Some(job));
                desk.wake();
                return None;
            }
        }
        let desk = Desk {
            next: RefCell::default(),
            waker: RefCell::default(),
            listed: Cell::new(false),
            closed: Cell::new(false),
            lanes: Rc::clone(self),
        };
        Some(Inbound { desk: Rc::new(desk), job: Some(job) })
    }

    /// Closes idle lanes until so many are left.
    pub(super) fn trim(&self, most: usize) {
        let keep = self.idle.borrow().len().min(most);
        // Those used last stay.
        let excess: Vec<_> = {
            let mut idle = self.idle.borrow_mut();
            let excess = idle.len() - keep;
            idle.drain(..excess).collect()
        };
        for desk in excess {
            desk.closed.set(true);
            desk.wake();
        }
    }
}

impl Job {
    pub(super) fn new(
        lanes: &Rc<Lanes>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Result<Self, (Malformed, SendResponse<Bytes>)> {
        let (parts, body) = request.into_parts();
        let mut request = Download::new();
        let ended = body.is_end_stream();
        match fields::write_request(request.text(), &parts, ended) {
            Err(malformed) => return Err((malformed, respond)),
            Ok(_) if ended => {}
            Ok(coding) => request.follow(body, coding),
        }
        lanes.busy.set(lanes.busy.get() + 1);
        Ok(Self {
            request,
            respond,
            answer: Answer::Head(Vec::new()),
            bodiless: parts.method == Method::HEAD,
            busy: Busy(Rc::clone(lanes)),
        })
    }

    /// Ready when the client has taken the request back, or is gone.
    fn poll_gone(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let reset = match &mut self.answer {
            Answer::Head(_) => self.respond.poll_reset(context),
            Answer::Body(body) => body.stream().poll_reset(context),
            Answer::Complete => return Poll::Pending,
        };
        reset.map(drop)
    }

    /// Takes some of the answer.
    fn poll_answer(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.answer {
            Answer::Head(begun) => {
                let before = begun.len();
                let read = if begun.is_empty() {
                    fields::read_response(bytes, self.bodiless)
                } else {
                    begun.extend_from_slice(bytes);
                    fields::read_response(begun, self.bodiless)
                };
                let read = match read {
                    Ok(read) => read,
                    Err(Unread::Partial) => {
                        if before == 0 {
                            begun.extend_from_slice(bytes);
                        }
                        return Poll::Ready(Ok(bytes.len()));
                    }
                    Err(Unread::Malformed) => return Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
                };
                begun.clear();
                if read.head.status().is_informational() {
                    self.respond.send_informational(read.head).map_err(describe)?;
                } else {
                    let ended = matches!(read.rest, Rest::Nothing);
                    let stream = self.respond.send_response(read.head, ended).map_err(describe)?;
                    self.answer =
                        if ended { Answer::Complete } else { Answer::Body(Upload::new(stream, read.rest)) };
                }
                Poll::Ready(Ok(read.length - before))
            }
            Answer::Body(body) => {
                let taken = ready!(body.poll_write(context, bytes))?;
                if body.is_ended() {
                    self.answer = Answer::Complete;
                }
                Poll::Ready(Ok(taken))
            }
            Answer::Complete => Poll::Ready(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    fn is_answered(&self) -> bool {
        matches!(self.answer, Answer::Complete)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

impl Drop for Job {
    /// An answer that was not brought to its end is reset.
    fn drop(&mut self) {
        let lanes = &self.busy.0;
        if self.is_answered() {
            return lanes.taken_back.set(lanes.taken_back.get().saturating_sub(1));
        }
        let gone = self.poll_gone(&mut Context::from_waker(Waker::noop())).is_ready();
        let lanes = &self.busy.0;
        if gone {
            return lanes.taken_back.set(lanes.taken_back.get().saturating_add(1));
        }
        match &mut self.answer {
            Answer::Body(body) => body.stream().send_reset(Reason::INTERNAL_ERROR),
            _ => self.respond.send_reset(Reason::INTERNAL_ERROR),
        }
    }
}

impl Desk {
    /// The next request; none when there will be no more.
    fn poll_next(self: &Rc<Self>, context: &mut Context<'_>) -> Poll<Option<Job>> {
        if let Some(job) = self.next.take() {
            return Poll::Ready(Some(job));
        }
        if self.closed.get() {
            return Poll::Ready(None);
        }
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        if !self.listed.replace(true) {
            self.lanes.idle.borrow_mut().push(Rc::clone(self));
        }
        Poll::Pending
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Inbound {
    /// Ready when the client has taken the request under way back, or is gone.
    pub(in crate::http) fn poll_taken_back(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.job.as_mut().map_or(Poll::Pending, |job| job.poll_gone(context))
    }
}

impl AsyncRead for Inbound {
    /// The request, and then its end as long as it is not answered: bytes come again with the next one.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let this = &mut *self;
            let Some(job) = this.job.as_mut().filter(|job| !job.is_answered()) else {
                this.job = None;
                match ready!(this.desk.poll_next(context)) {
                    Some(job) => this.job = Some(job),
                    None => return Poll::Ready(Ok(())),
                }
                continue;
            };
            if !job.request.is_ended() {
                let before = buffer.filled().len();
                ready!(job.request.poll_read(context, buffer)).map_err(describe)?;
                if buffer.filled().len() > before {
                    return Poll::Ready(Ok(()));
                }
                continue;
            }
            return job.poll_gone(context).map(|()| Err(io::ErrorKind::ConnectionReset.into()));
        }
    }
}

impl AsyncWrite for Inbound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut self.job {
            Some(job) => job.poll_answer(context, bytes),
            None => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// No more requests.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.desk.closed.set(true);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.desk.closed.set(true);
    }
}
