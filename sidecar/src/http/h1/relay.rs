//! The answer of a backend on its way to the client, with what is left of the request's body on its way up.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    sync::atomic::Ordering,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use tokio::io::copy_bidirectional;

use super::{
    attempt::{Failure, Upload},
    client::{Client, framing_for},
    goodbye::Next,
    pump::{Pump, PumpError, Recode},
};
use crate::{
    balance::Outcome,
    http::{
        exchange::{Exchange, Inflight},
        forward::{Call, forward},
        message::{Edits, Framing, ResponseHead},
        reply::Cause,
        resume::Resume,
        thread::Thread,
    },
};

/// Times that one answer is gone on with, at most.
const MOST_RESUMES: u32 = 3;

/// Passes an answer on, whose head is in `response`.
pub(super) async fn relay(
    thread: &Rc<Thread>,
    client: &mut Client,
    mut upload: Upload,
    mut exchange: Exchange,
    inflight: Inflight,
    call: Call<'_>,
    response: &mut ResponseHead,
) -> Next {
    let request = call.request;
    exchange.answered(response.status);
    client.note.answered(response.status);
    let framing = framing_for(request, response.framing);
    let recode = match (response.framing, framing) {
        (from, to) if from == to => Recode::Keep,
        (_, Framing::Chunked) => Recode::IntoChunks,
        _ => Recode::OutOfChunks,
    };
    let switched = response.status == 101;
    let close = !switched
        && (!request.keep_alive
            || framing == Framing::UntilClose
            || upload.is_gated()
            || thread.is_draining());
    response.write(client.wire.output.bytes(), request, framing, close);
    if switched {
        exchange.observe(Outcome::Good);
        return Box::pin(tunnel(client, exchange)).await;
    }
    let mut download = Pump::new(response.framing, recode);
    client.answering(true);
    let received = receive(client, &mut upload, &mut download, &mut exchange).await;
    exchange.count(&upload, download.received());
    client.note.moved(upload.bytes(), download.received());
    match received {
        Ok(()) => {}
        Err(PumpError::Sink(_)) => return Next::Gone,
        Err(error @ (PumpError::Overdue(_) | PumpError::TooLarge(_))) => {
            tracing::debug!(listener = %thread.listener, %error, "an answer is cut off");
            if matches!(error, PumpError::TooLarge(_)) {
                client.note.caused_by(Cause::BodyTooLarge.name());
            }
            return Next::Abort;
        }
        Err(error) => {
            broke_off(&exchange, &error);
            // On the heap as what is rare, so that every other request is smaller.
            let resumed = resume(thread, client, &mut upload, &download, exchange, call, response);
            let Some(resumed) = Box::pin(resumed).await else {
                client.note.caused_by("BackendBroke");
                return Next::Abort;
            };
            (exchange, download) = resumed;
        }
    }
    // Before the client can know, so that its next request finds the connection, and the backend with one request less.
    inflight.finish();
    let taken = upload.is_complete();
    exchange.finish(taken && response.keep_alive && !download.has_surplus());
    if send_rest(client, &mut download).await.is_err() {
        return Next::Gone;
    }
    client.answering(false);
    match (taken, close) {
        (true, false) => Next::Request,
        (true, true) => Next::Close,
        (false, _) => Next::Linger,
    }
}

fn broke_off(exchange: &Exchange, error: &PumpError) {
    exchange.observe(Outcome::Broken);
    let address = &exchange.busy.backend().address;
    tracing::debug!(%address, %error, "a backend's answer broke off");
}

/// Has the rest of an answer that broke off sent by another backend, where nobody can tell the difference. None when the
/// answer has to stay broken.
async fn resume(
    thread: &Rc<Thread>,
    client: &mut Client,
    upload: &mut Upload,
    download: &Pump,
    failed: Exchange,
    broken: Call<'_>,
    response: &mut ResponseHead,
) -> Option<(Exchange, Pump)> {
    let Call { request, edits, .. } = broken;
    let resume = Resume::of(request, response)?;
    let without: Vec<&str> = edits.without.iter().copied().chain(["range"]).collect();
    let (mut received, mut last) = (download.moved(), failed.busy.backend().id);
    drop(failed);
    for _ in 0..MOST_RESUMES {
        if !thread.budget.withdraw(Instant::now()) {
            return None;
        }
        let extra = [edits.extra, &resume.lines(received)].concat();
        let edits = Edits { without: &without, extra: &extra, ..edits };
        let call = Call { request, edits, resumes: Some(last) };
        let mut exchange = forward(thread, client, upload, call, response).await.ok()?;
        exchange.answered(response.status);
        if !resume.is_continued_by(response, received) {
            return None;
        }
        exchange.busy.backend().detail.resumed.fetch_add(1, Ordering::Relaxed);
        let mut rest = Pump::new(response.framing, Recode::Keep);
        let ended = receive(client, upload, &mut rest, &mut exchange).await;
        exchange.count(upload, rest.received());
        client.note.moved(upload.bytes(), rest.received());
        match ended {
            Ok(()) => return Some((exchange, rest)),
            Err(PumpError::Sink(_) | PumpError::Overdue(_) | PumpError::TooLarge(_)) => return None,
            Err(error) => broke_off(&exchange, &error),
        }
        received += rest.moved();
        last = exchange.busy.backend().id;
    }
    None
}

/// Moves both bodies until the answer has been received to its end.
async fn receive(
    client: &mut Client,
    upload: &mut Upload,
    download: &mut Pump,
    exchange: &mut Exchange,
) -> Result<(), PumpError> {
    let mut progress = None;
    poll_fn(|context| {
        let mut too_large = None;
        if !upload.is_complete()
            && !upload.is_gated()
            && let Poll::Ready(Err(failure)) =
                upload.poll(context, &mut client.wire, &mut exchange.connection.wire)
        {
            // Whether the client still wants its answer shows when that is written.
            upload.stop();
            if let Failure::TooLarge(most) = failure {
                too_large = Some(most);
            }
        }
        if let Poll::Ready(done) = download.poll(context, &mut exchange.connection.wire, &mut client.wire) {
            return Poll::Ready(done);
        }
        if let Some(most) = too_large {
            // The backend may wait for the rest, which it must not take for whole.
            return Poll::Ready(Err(PumpError::TooLarge(most)));
        }
        if client.wire.stream.poll_taken_back(context).is_ready() {
            return Poll::Ready(Err(PumpError::Sink(io::ErrorKind::ConnectionReset.into())));
        }
        ready!(client.poll_stalled(context, &mut progress, download.moved() + upload.bytes()));
        if let Some(total) = client.overdue() {
            return Poll::Ready(Err(PumpError::Overdue(total)));
        }
        let stalled = || stalled(client.timeouts.idle);
        // A client that neither reads nor sends is no fault of the backend.
        let client_stalls = download.waits_for(&client.wire) || !upload.is_complete();
        Poll::Ready(Err(if client_stalls {
            PumpError::Sink(stalled())
        } else {
            PumpError::Source(stalled())
        }))
    })
    .await
}

/// Sends what the backend is no longer needed for.
async fn send_rest(client: &mut Client, download: &mut Pump) -> io::Result<()> {
    let mut progress = None;
    poll_fn(|context| {
        if let Poll::Ready(done) = download.poll_rest(context, &mut client.wire) {
            return Poll::Ready(done);
        }
        client
            .poll_stalled(context, &mut progress, download.moved())
            .map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

fn stalled(limit: Duration) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("nothing moved for {limit:?}"))
}

impl Client {
    /// Ready when nothing has moved for as long as it may, or when the request's whole time is over. `progress` is what had
    /// moved when the alarm was set.
    fn poll_stalled(
        &mut self,
        context: &mut Context<'_>,
        progress: &mut Option<u64>,
        moved: u64,
    ) -> Poll<()> {
        loop {
            if progress.is_none() {
                *progress = Some(moved);
                self.alarm_after(self.timeouts.idle);
            }
            ready!(self.alarm.poll(context));
            if *progress == Some(moved) || self.overdue().is_some() {
                return Poll::Ready(());
            }
            *progress = None;
        }
    }
}

/// After `101 Switching Protocols`: bytes both ways until one side ends.
async fn tunnel(client: &mut Client, mut exchange: Exchange) -> Next {
    let backend = &mut exchange.connection.wire;
    let begun = poll_fn(|context| {
        backend.hand_over(&mut client.wire);
        client.wire.hand_over(backend);
        ready!(client.wire.poll_send(context, &[]))?;
        backend.poll_send(context, &[]).map_ok(drop)
    });
    let copied = match begun.await {
        Ok(()) => copy_bidirectional(&mut client.wire.stream, &mut backend.stream)
            .await
            .map(|(received, sent)| client.note.moved(received, sent)),
        Err(error) => Err(error),
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "an upgraded connection ended");
    }
    Next::Gone
}
