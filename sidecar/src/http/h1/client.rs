//! One connection of a client, from its first byte to its end: idle -> head -> forward -> relay -> idle.

use std::{future::poll_fn, io, rc::Rc, task::Poll, time::Duration};

use crds::config::DownAnswer;
use tokio::time::{Instant, timeout_at};

use super::{
    attempt::Upload,
    goodbye::{LINGER, Next},
    relay,
    wire::Wire,
};
use crate::{
    http::{
        access::{Entry, Note, Peer},
        admit::Admitted,
        exchange::Inflight,
        forward::{Call, Unanswered, forward},
        forwarded,
        h2::{self, Inbound},
        message::{BadRequest, Edits, Framing, MAX_HEAD, Method, RequestHead, Version},
        own_paths::{OwnAnswer, OwnPath},
        reply::{self, Refusal},
        settings::Timeouts,
        sidekick_page,
        thread::{Scratch, Thread},
        transport::Transport,
    },
    net::{Accepted, Alarm, Slot, buffer::SMALL},
};

/// A head has this long to arrive, from its first byte.
const HEAD: Duration = Duration::from_secs(30);

/// While draining, an idle connection stays open this long for a request that may be on its way.
const DRAIN: Duration = Duration::from_secs(1);

/// Longest wait for the body of an error, which tells what kind it is.
const PEEK: Duration = Duration::from_millis(500);

/// A client, and all the deadlines that its requests have.
pub(in crate::http) struct Client {
    pub(in crate::http) wire: Wire,
    pub(in crate::http) alarm: Alarm,
    /// Of the request that is being served.
    pub(in crate::http) timeouts: Timeouts,
    /// When its whole time is over.
    pub(in crate::http) due: Option<Instant>,
    /// An answer has begun and not ended: if the connection ends now, that must not look like the answer's end.
    answering: bool,
    /// For the access log.
    pub(in crate::http) note: Rc<Note>,
    /// Counts the connection; a lane of HTTP/2 has none of its own.
    _slot: Option<Slot>,
}

pub(in crate::http) async fn serve(thread: Rc<Thread>, accepted: Accepted) {
    let (stream, slot) = match accepted.open(thread.tls().as_deref()).await {
        Ok(opened) => opened,
        Err(error) => {
            return tracing::debug!(listener = %thread.listener, %error, "a connection could not be served");
        }
    };
    let note = Note::of(&stream);
    let mut client = Client::new(&thread, stream.into(), note, Some(slot));
    // A drain wakes all connections, and only idle ones have something to do then.
    let _registered = poll_fn(|context| Poll::Ready(thread.register(context.waker()))).await;
    match client.speaks_http2(&thread).await {
        None => {}
        Some(false) => client.run(&thread).await,
        Some(true) => {
            let peer = Rc::clone(&client.note.peer);
            // On the heap, so that a connection in HTTP/1.1 is no larger for it.
            Box::pin(h2::serve(&thread, &mut client.wire, peer)).await;
        }
    }
}

/// Serves the requests of one lane of a client's connection in HTTP/2.
pub(in crate::http) async fn serve_lane(thread: Rc<Thread>, lane: Inbound, peer: Rc<Peer>) {
    let mut client = Client::new(&thread, Transport::Inbound(Box::new(lane)), Note::about(peer), None);
    let _registered = poll_fn(|context| Poll::Ready(thread.register(context.waker()))).await;
    client.run(&thread).await;
}

impl Client {
    fn new(thread: &Thread, stream: Transport, note: Rc<Note>, slot: Option<Slot>) -> Self {
        let timeouts = thread.settings().timeouts;
        Self {
            wire: Wire::new(stream),
            alarm: Alarm::after(timeouts.idle),
            timeouts,
            due: None,
            answering: false,
            note,
            _slot: slot,
        }
    }

    /// Serves one request after the other until the connection ends.
    async fn run(&mut self, thread: &Rc<Thread>) {
        let next = loop {
            if !self.has_more(thread).await {
                break Next::Gone;
            }
            let mut scratch = thread.lend();
            // On the heap, so that a connection that waits for its next request holds none of what a request needs.
            let next = Box::pin(self.serve_one(thread, &mut scratch)).await;
            thread.give_back(scratch);
            if !matches!(next, Next::Request) {
                break next;
            }
        };
        self.end(next).await;
    }

    /// Whether the client has agreed to HTTP/2 within TLS, or begins with its preface; none when nothing comes. Asked once,
    /// before the first request.
    async fn speaks_http2(&mut self, thread: &Thread) -> Option<bool> {
        if self.wire.stream.agreed_on_http2() {
            return Some(true);
        }
        if !self.has_more(thread).await {
            return None;
        }
        self.alarm.set_after(HEAD);
        poll_fn(|context| {
            loop {
                let input = self.wire.input();
                let known = input.len().min(h2::PREFACE.len());
                if input[..known] != h2::PREFACE[..known] {
                    return Poll::Ready(Some(false));
                }
                if known == h2::PREFACE.len() {
                    return Poll::Ready(Some(true));
                }
                match self.wire.poll_fill(context, SMALL, MAX_HEAD) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(None),
                    Poll::Pending => return self.alarm.poll(context).map(|()| None),
                }
            }
        })
        .await
    }

    /// Waits for the first byte of a request. False when none will come.
    async fn has_more(&mut self, thread: &Thread) -> bool {
        self.due = None;
        self.alarm.set_after(thread.settings().timeouts.idle);
        let mut draining = false;
        poll_fn(|context| {
            if !self.wire.input().is_empty() {
                return Poll::Ready(true);
            }
            if let Poll::Ready(read) = self.wire.poll_fill(context, SMALL, MAX_HEAD) {
                return Poll::Ready(matches!(read, Ok(1..)));
            }
            if thread.is_draining() && !draining {
                draining = true;
                self.alarm.set_after(DRAIN);
            }
            self.alarm.poll(context).map(|()| false)
        })
        .await
    }

    async fn serve_one(&mut self, thread: &Rc<Thread>, scratch: &mut Scratch) -> Next {
        match self.read_head(&mut scratch.request).await {
            Ok(true) => self.answer(thread, scratch).await,
            Ok(false) => {
                tracing::debug!(listener = %thread.listener, "the head of a request did not come to its end");
                Next::Gone
            }
            Err(bad) => {
                tracing::debug!(listener = %thread.listener, %bad, "a request was refused");
                scratch.request.keep_alive = false;
                let local = thread.local();
                let _entry = Entry::begin(thread, &local.gate, &self.note, None);
                self.refuse(thread, &scratch.request, &bad.into(), true).await
            }
        }
    }

    /// Reads a head that has begun. False when it does not come to its end.
    async fn read_head(&mut self, head: &mut RequestHead) -> Result<bool, BadRequest> {
        if let Some(length) = head.parse(self.wire.input())? {
            self.wire.consume(length);
            return Ok(true);
        }
        self.alarm.set_after(HEAD);
        // Only the end of a line can make it complete.
        let mut seen = self.wire.input().len();
        poll_fn(|context| {
            loop {
                match self.wire.poll_fill(context, SMALL, MAX_HEAD) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(Ok(false)),
                    Poll::Pending => return self.alarm.poll(context).map(|()| Ok(false)),
                }
                let input = self.wire.input();
                if (input[seen..].contains(&b'\n') || input.len() >= MAX_HEAD)
                    && let Some(length) = head.parse(input)?
                {
                    self.wire.consume(length);
                    return Poll::Ready(Ok(true));
                }
                seen = input.len();
            }
        })
        .await
    }

    async fn answer(&mut self, thread: &Rc<Thread>, scratch: &mut Scratch) -> Next {
        let Scratch { request, response, extra, without } = scratch;
        let (request, local) = (&*request, thread.local());
        let settings = thread.settings();
        self.timeouts = settings.timeouts;
        self.due = settings.timeouts.total.map(|total| Instant::now() + total);
        let mut entry = Entry::begin(thread, &local.gate, &self.note, Some(request));
        let mut upload = Upload::new(request, settings.max_body);
        let peer = &self.note.peer;
        let own = OwnPath::of(settings.sidekick, request.method, request.path());
        let Admitted { trace, lines } = match local.gate.admit(thread, request, own, peer, entry.started()) {
            Ok(admitted) => admitted,
            Err(refusal) => {
                entry.ends(false);
                return self.refuse(thread, request, &refusal, !upload.is_read()).await;
            }
        };
        entry.belongs_to(trace);
        if let Some(own) = own {
            entry.ends(false);
            return self.reply(thread, request, &own_answer(thread, own), !upload.is_read()).await;
        }
        if let Framing::Length(length) = request.framing
            && length > settings.max_body
        {
            entry.ends(false);
            let refusal = Refusal::BodyTooLarge { most: settings.max_body };
            return self.refuse(thread, request, &refusal, true).await;
        }
        extra.clear();
        without.clear();
        if let Some(trace) = trace {
            trace.tell(without, extra);
        }
        if let Some(lines) = lines {
            extra.extend_from_slice(&lines);
        }
        let client = peer.address.map(|address| address.ip());
        if let Some(client) = settings.forwarded.and_then(|known| forwarded::client(client, known.own)) {
            without.extend_from_slice(forwarded::REPLACED);
            forwarded::write(extra, &request.fields, request.host(), client);
        }
        let inflight = Inflight::start(thread, entry.started());
        let call =
            Call { request, edits: Edits { without, removed: local.gate.removed(), extra }, resumes: None };
        let next = match forward(thread, self, &mut upload, call, response).await {
            Ok(exchange) => relay::relay(thread, self, upload, exchange, inflight, call, response).await,
            Err(Unanswered::Gone) => Next::Gone,
            Err(Unanswered::Refused(refusal)) => {
                tracing::debug!(listener = %thread.listener, %refusal, "answering instead of a backend");
                drop(inflight);
                let close = !upload.is_read();
                self.refuse(thread, request, &refusal, close).await
            }
        };
        entry.ends(matches!(next, Next::Gone));
        next
    }

    /// Answers that no backend could, or that the request is none.
    async fn refuse(
        &mut self,
        thread: &Thread,
        request: &RequestHead,
        refusal: &Refusal,
        unread: bool,
    ) -> Next {
        let down = refusal.blames_backends() && thread.settings().down_answer == DownAnswer::BackendDown;
        let mut answer =
            refusal.answer(down.then(|| request.path().split(|byte| *byte == b'?').next()).flatten());
        thread.counters.refused(refusal.cause(), answer.status);
        self.note.caused_by(refusal.cause().name());
        // Of a request that is none, nothing is known.
        if !matches!(refusal, Refusal::BadRequest(_)) && request.is_grpc() {
            answer.content_type = reply::GRPC;
        }
        self.reply(thread, request, &answer, unread).await
    }

    /// Answers in the sidecar's own words. `unread`: the client may still be sending.
    async fn reply(
        &mut self,
        thread: &Thread,
        request: &RequestHead,
        answer: &OwnAnswer,
        unread: bool,
    ) -> Next {
        let close = unread || !request.keep_alive || thread.is_draining();
        let connection = match (close, request.version) {
            (true, _) => Some("close"),
            (false, Version::Http10) => Some("keep-alive"),
            (false, Version::Http11) => None,
        };
        self.note.answered(answer.status.as_u16());
        reply::write(answer, self.wire.output.bytes(), request.method == Method::Head, connection);
        self.alarm.set_after(LINGER);
        let sent = poll_fn(|context| {
            if let Poll::Ready(sent) = self.wire.poll_send(context, &[]) {
                return Poll::Ready(sent.map(drop));
            }
            self.alarm.poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
        });
        match (sent.await, close, unread) {
            (Err(_), ..) => Next::Gone,
            (Ok(()), false, _) => Next::Request,
            (Ok(()), true, false) => Next::Close,
            (Ok(()), true, true) => Next::Linger,
        }
    }

    /// Sets the alarm, at the latest for when the request's whole time is over.
    pub(in crate::http) fn alarm_after(&mut self, limit: Duration) {
        let deadline = Instant::now() + limit;
        self.alarm.set(self.due.map_or(deadline, |due| due.min(deadline)));
    }

    /// The time that the request had, if it is over.
    pub(in crate::http) fn overdue(&self) -> Option<Duration> {
        self.timeouts.total.filter(|_| self.due.is_some_and(|due| due <= Instant::now()))
    }

    /// `None` when the request's time is over before.
    pub(in crate::http) async fn in_time<F: Future>(&self, future: F) -> Option<F::Output> {
        match self.due {
            Some(due) => timeout_at(due, future).await.ok(),
            None => Some(future.await),
        }
    }

    pub(super) fn answering(&mut self, answering: bool) {
        self.answering = answering;
    }

    /// Waits a moment for the beginning of a body, so that it can be looked at.
    pub(in crate::http) async fn peek(&mut self, backend: &mut Wire, framing: Framing, most: usize) {
        let wanted = match framing {
            Framing::None => 0,
            Framing::Length(length) => usize::try_from(length).unwrap_or(most).min(most),
            Framing::Chunked | Framing::UntilClose => most,
        };
        self.alarm_after(PEEK);
        poll_fn(|context| {
            loop {
                let input = backend.input();
                if input.len() >= wanted || framing == Framing::Chunked && input.ends_with(b"0\r\n\r\n") {
                    return Poll::Ready(());
                }
                match backend.poll_fill(context, SMALL, SMALL) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return self.alarm.poll(context),
                }
            }
        })
        .await;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if self.answering {
            self.wire.stream.end_with_reset();
        }
    }
}

fn own_answer(thread: &Thread, own: OwnPath) -> OwnAnswer {
    let local = thread.local();
    match own {
        OwnPath::Health => OwnAnswer::health(local.route.is_live(), &local.route.unavailable),
        OwnPath::Certificates => {
            OwnAnswer::certificates(thread.tls().and_then(|tls| tls.self_signed_pem().map(str::to_owned)))
        }
        OwnPath::Metrics => OwnAnswer::metrics(sidekick_page::page(&local.route.backends)),
    }
}

/// How a body goes on to a client: the client may not know chunks, and needs to tell an end from a break.
pub(super) fn framing_for(request: &RequestHead, framing: Framing) -> Framing {
    match (request.version, framing) {
        (Version::Http10, Framing::Chunked) => Framing::UntilClose,
        (Version::Http11, Framing::UntilClose) => Framing::Chunked,
        (_, framing) => framing,
    }
}
