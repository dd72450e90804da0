//! One try: a request on one connection, until the head of the answer is there. Meanwhile the body goes up, interim answers
//! come down, and the client is watched.

use std::{
    future::poll_fn,
    io,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::{
    client::Client,
    pump::{Pump, PumpError, Recode},
    wire::Wire,
};
use crate::{
    http::{
        h2::Unsent,
        message::{BadRequest, Framing, MAX_HEAD, RequestHead, ResponseHead, Version},
        settings::Timeouts,
    },
    net::buffer::SMALL,
};

/// A backend that does not know `Expect` gets the body after this time.
const CONTINUE: Duration = Duration::from_secs(1);

/// Interim answers to one request, at most.
const MOST_INTERIM: u32 = 16;

/// Why a try gave no answer.
#[derive(Debug)]
pub(in crate::http) enum Failure {
    /// The connection was closed before anything of the request was written: it may go to any other.
    Unsent,
    /// The backend has said that it did not take the request, which may go to any other.
    Refused,
    /// The request may have reached the backend.
    Broken(String),
    /// Given up after this time, since the request may, and is going to, be sent elsewhere.
    Slow(Duration),
    TimedOut(Duration),
    /// The client has gone.
    Gone,
    /// The client's body cannot be read to its end.
    Body(BadRequest),
    /// The client's body is larger than so many bytes, which is what the listener lets through.
    TooLarge(u64),
}

/// A request's body on its way up.
#[derive(Debug)]
pub(in crate::http) struct Upload {
    pump: Pump,
    /// Waits until the backend wants it.
    gated: bool,
    /// The whole body has been sent.
    complete: bool,
    /// The backend takes no more of it; it may still answer.
    refused: bool,
}

impl Upload {
    /// `most`: bytes of the body that are let through.
    pub(in crate::http) fn new(request: &RequestHead, most: u64) -> Self {
        let complete = request.framing == Framing::None;
        let gated = request.continues && !complete;
        let pump = Pump::new(request.framing, Recode::Keep).keeping().up_to(most);
        Self { pump, gated, complete, refused: false }
    }

    /// The whole body has been sent.
    pub(in crate::http) fn is_complete(&self) -> bool {
        self.complete
    }

    /// The whole body has been read from the client, who may send another request.
    pub(super) fn is_read(&self) -> bool {
        self.pump.is_read()
    }

    /// Something of the body has left its buffer, so that it cannot be sent again.
    pub(in crate::http) fn has_begun(&self) -> bool {
        self.pump.moved() > 0
    }

    pub(in crate::http) fn bytes(&self) -> u64 {
        self.pump.moved()
    }

    /// No more of it is wanted.
    pub(super) fn stop(&mut self) {
        self.refused = true;
    }

    /// The client waits for leave to send the body, and never got it.
    pub(super) fn is_gated(&self) -> bool {
        self.gated
    }

    /// The backend has all that the client has sent, and waits for the rest.
    fn waits_for_client(&self, backend: &Wire) -> bool {
        !(self.complete || self.gated || self.refused || self.pump.waits_for(backend))
    }

    /// Moves the head and the body. Errors are the client's: a backend that takes no more is asked for its answer.
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
        client: &mut Wire,
        backend: &mut Wire,
    ) -> Poll<Result<(), Failure>> {
        if self.refused {
            return Poll::Pending;
        }
        if self.gated || self.complete {
            if !backend.is_flushed() && ready!(backend.poll_send(context, &[])).is_err() {
                self.refused = true;
            }
            return Poll::Pending;
        }
        match ready!(self.pump.poll(context, client, backend)) {
            Ok(()) => self.complete = true,
            Err(PumpError::Sink(_)) => self.refused = true,
            Err(PumpError::Source(_) | PumpError::CutShort | PumpError::Overdue(_)) => {
                return Poll::Ready(Err(Failure::Body(BadRequest::CutShort)));
            }
            Err(PumpError::TooLarge(most)) => return Poll::Ready(Err(Failure::TooLarge(most))),
            Err(PumpError::Chunks(_)) => return Poll::Ready(Err(Failure::Body(BadRequest::Chunks))),
        }
        Poll::Ready(Ok(()))
    }
}

/// What the alarm is set for.
enum Stage {
    Gate,
    FirstByte,
    /// And how much of the body had moved when it was set.
    Answer(u64),
}

/// One try under way.
pub(in crate::http) struct Attempt<'a> {
    pub(in crate::http) client: &'a mut Client,
    pub(in crate::http) upload: &'a mut Upload,
    pub(in crate::http) backend: &'a mut Wire,
    pub(in crate::http) request: &'a RequestHead,
    pub(in crate::http) response: &'a mut ResponseHead,
    /// The client waits for a head, and may be told that it takes time.
    pub(in crate::http) passes_interim: bool,
}

impl Attempt<'_> {
    /// Sends what is in the backend's output, and the body, and waits for the answer's head. `give_up` is asked when that
    /// takes long: true when the request may, and is going to, be sent elsewhere.
    pub(in crate::http) async fn run(mut self, mut give_up: impl FnMut() -> bool) -> Result<(), Failure> {
        let before = self.backend.written();
        let mut stage = if self.upload.gated { Stage::Gate } else { Stage::FirstByte };
        let Timeouts { first_byte, idle, .. } = self.client.timeouts;
        self.client.alarm_after(if self.upload.gated { CONTINUE } else { first_byte });
        let mut interims = 0;
        let answered = poll_fn(|context| {
            loop {
                if let Poll::Ready(moved) = self.upload.poll(context, &mut self.client.wire, self.backend) {
                    moved?;
                }
                match self.poll_head(context) {
                    Poll::Ready(Ok(())) if self.response.is_interim() => {
                        interims += 1;
                        if interims > MOST_INTERIM {
                            return Poll::Ready(Err(Failure::Broken(
                                "it sent interim answers without end".into(),
                            )));
                        }
                        self.pass_on_interim();
                        if !self.upload.gated && matches!(stage, Stage::Gate) {
                            stage = Stage::FirstByte;
                            self.client.alarm_after(first_byte);
                        }
                        continue;
                    }
                    Poll::Ready(result) => return Poll::Ready(result),
                    Poll::Pending => {}
                }
                if self.poll_client(context).is_ready() {
                    return Poll::Ready(Err(Failure::Gone));
                }
                ready!(self.client.alarm.poll(context));
                if let Some(total) = self.client.overdue() {
                    return Poll::Ready(Err(self.timed_out(total)));
                }
                match stage {
                    Stage::Gate => {
                        self.upload.gated = false;
                        self.ask_for_body();
                        stage = Stage::FirstByte;
                        self.client.alarm_after(first_byte);
                    }
                    Stage::FirstByte if give_up() => return Poll::Ready(Err(Failure::Slow(first_byte))),
                    Stage::Answer(moved) if moved == self.upload.bytes() => {
                        return Poll::Ready(Err(self.timed_out(idle)));
                    }
                    Stage::FirstByte | Stage::Answer(_) => {
                        stage = Stage::Answer(self.upload.bytes());
                        self.client.alarm_after(idle);
                    }
                }
            }
        });
        let result = answered.await;
        match result {
            Err(Failure::Broken(_)) if self.backend.written() == before => Err(Failure::Unsent),
            result => result,
        }
    }

    /// A client that does not send the rest of its body is no fault of the backend.
    fn timed_out(&self, limit: Duration) -> Failure {
        if self.upload.waits_for_client(self.backend) {
            Failure::Body(BadRequest::Stalled)
        } else {
            Failure::TimedOut(limit)
        }
    }

    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let broken = |cause: String| Poll::Ready(Err(Failure::Broken(cause)));
        loop {
            if !self.backend.input().is_empty() {
                match self.response.parse(self.backend.input(), self.request) {
                    Ok(Some(length)) => {
                        self.backend.consume(length);
                        return Poll::Ready(Ok(()));
                    }
                    Ok(None) => {}
                    Err(bad) => return broken(bad.to_string()),
                }
            }
            match ready!(self.backend.poll_fill(context, SMALL, MAX_HEAD)) {
                Ok(1..) => {}
                Ok(0) => return broken("closed the connection".to_owned()),
                Err(error) => return Poll::Ready(Err(failure(&error))),
            }
        }
    }

    fn pass_on_interim(&mut self) {
        let wanted = self.response.status != 100 || self.upload.gated;
        if self.response.status == 100 {
            self.upload.gated = false;
        }
        if wanted && self.passes_interim && self.request.version == Version::Http11 {
            let out = self.client.wire.output.bytes();
            self.response.write(out, self.request, Framing::None, false);
        }
    }

    /// The sidecar's own leave to send the body.
    fn ask_for_body(&mut self) {
        self.client.wire.output.bytes().extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
    }

    /// Sends interim answers. Ready when the client has gone.
    fn poll_client(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let wire = &mut self.client.wire;
        if !wire.is_flushed()
            && let Poll::Ready(Err(_)) = wire.poll_send(context, &[])
        {
            return Poll::Ready(());
        }
        if self.upload.complete || self.upload.gated { wire.poll_gone(context) } else { Poll::Pending }
    }
}

/// What an error of the connection to a backend means for the request.
fn failure(error: &io::Error) -> Failure {
    match Unsent::of(error) {
        Some(Unsent::Refused) => Failure::Refused,
        Some(Unsent::GoingAway) => Failure::Unsent,
        Some(Unsent::Unfit) => Failure::Body(BadRequest::NotHttp2),
        None => Failure::Broken(describe(error)),
    }
}

/// Says what users search for, without the number of the error.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionReset => "connection reset".to_owned(),
        io::ErrorKind::UnexpectedEof => "closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
