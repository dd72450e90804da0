//! A client's connection in HTTP/2: accept a stream -> give it to a lane -> drive the connection. Ends when the client ends it,
//! takes back too many requests or answers no ping, after a drain, and when no request has come and none was under way for
//! the listener's idle time, at the latest after twice that.

use std::{future::poll_fn, rc::Rc, task::Poll, time::Duration};

use bytes::Bytes;
use h2::{Reason, RecvStream, server};
use http::{Request, Response, StatusCode};
use tokio::{task::JoinSet, time::timeout};

use super::{
    FRAME, HEADERS, SEND_BUFFER, STREAM_WINDOW,
    inbound::{Job, Lanes},
    pulse::Pulse,
};
use crate::{
    http::{
        access::Peer,
        h1::{self, Wire},
        reply::Cause,
        thread::Thread,
    },
    net::Alarm,
};

/// What a client sends first.
pub(in crate::http) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Requests under way on one connection.
const MOST_STREAMS: u32 = 250;

/// Bytes of all uploads of one connection that may come before they are taken.
const CONNECTION_WINDOW: u32 = 4 * 1024 * 1024;

/// Lanes that an idle connection keeps.
const KEPT_LANES: usize = 4;

/// Requests that a client may take back, beyond as many as it has had answered: more is an attack, for which each costs a
/// request to a backend and nothing to the client.
const MOST_TAKEN_BACK: u32 = 500;

/// Resets of streams that were not accepted yet, which is the same attack, and faster.
const MOST_RESETS: usize = 50;

/// The preface has this long to come.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// A client that came when all are sent away has this long for a first request.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// A client that was told to go has this long to hear it.
const GOODBYE: Duration = Duration::from_secs(10);

/// One connection.
struct Front<'a> {
    thread: &'a Rc<Thread>,
    peer: Rc<Peer>,
    connection: server::Connection<&'a mut Wire, Bytes>,
    lanes: Rc<Lanes>,
    tasks: JoinSet<()>,
    pulse: Option<Pulse>,
    alarm: Alarm,
    /// Requests came since the alarm was set.
    active: bool,
    /// It came when all are sent away, and has not asked for anything yet: what it wants is served first.
    late: bool,
    leaving: bool,
}

/// Serves a connection to its end.
pub(in crate::http) async fn serve(thread: &Rc<Thread>, wire: &mut Wire, peer: Rc<Peer>) {
    let mut builder = server::Builder::new();
    builder
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_header_list_size(HEADERS)
        .max_concurrent_streams(MOST_STREAMS)
        .max_send_buffer_size(SEND_BUFFER)
        .max_pending_accept_reset_streams(MOST_RESETS);
    let listener = &thread.listener;
    let mut connection = match timeout(HANDSHAKE, builder.handshake(wire)).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            return tracing::debug!(%listener, %error, "a connection in HTTP/2 did not begin");
        }
        Err(_) => return tracing::debug!(%listener, "a connection in HTTP/2 did not begin in time"),
    };
    let late = thread.is_draining();
    let patience = if late { FIRST_REQUEST } else { thread.settings().timeouts.idle };
    let mut front = Front {
        thread,
        peer,
        pulse: connection.ping_pong().map(Pulse::new),
        connection,
        lanes: Rc::default(),
        tasks: JoinSet::new(),
        alarm: Alarm::after(patience),
        active: false,
        late,
        leaving: false,
    };
    poll_fn(|context| front.poll(context)).await;
}

impl Front<'_> {
    /// Ready when the connection has ended, or is to be cut off.
    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<()> {
        loop {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, respond)))) => {
                    self.begin(request, respond);
                    continue;
                }
                Poll::Ready(Some(Err(error))) => {
                    tracing::debug!(listener = %self.thread.listener, %error, "a connection in HTTP/2 broke off");
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => {}
            }
            while let Poll::Ready(Some(_)) = self.tasks.poll_join_next(context) {}
            if self.lanes.taken_back() > MOST_TAKEN_BACK && !self.leaving {
                tracing::debug!(listener = %self.thread.listener, "a client takes back its requests without end");
                self.leaving = true;
                self.alarm.set_after(GOODBYE);
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            if self.thread.is_draining() && !self.late && !self.leaving {
                self.leave();
                continue;
            }
            if self.pulse.as_mut().is_some_and(|pulse| pulse.poll(context).is_ready()) {
                tracing::debug!(listener = %self.thread.listener, "a client in HTTP/2 has gone without a word");
                return Poll::Ready(());
            }
            if self.alarm.poll(context).is_pending() {
                return Poll::Pending;
            }
            if self.lanes.busy() > 0 || std::mem::take(&mut self.active) {
                self.lanes.trim(KEPT_LANES.max(self.lanes.busy()));
                self.alarm.set_after(self.thread.settings().timeouts.idle);
            } else if self.leaving {
                return Poll::Ready(());
            } else {
                self.leave();
                self.alarm.set_after(GOODBYE);
            }
        }
    }

    /// Takes no more requests, and ends once those under way are answered.
    fn leave(&mut self) {
        self.leaving = true;
        self.connection.graceful_shutdown();
    }

    fn begin(&mut self, request: Request<RecvStream>, respond: server::SendResponse<Bytes>) {
        self.active = true;
        self.late = false;
        match Job::new(&self.lanes, request, respond) {
            Ok(job) => {
                if let Some(lane) = self.lanes.give(job) {
                    self.tasks.spawn_local(h1::serve_lane(
                        Rc::clone(self.thread),
                        lane,
                        Rc::clone(&self.peer),
                    ));
                }
            }
            Err((malformed, mut respond)) => {
                tracing::debug!(listener = %self.thread.listener, %malformed, "a request was refused");
                self.thread.counters.refused(Cause::BadRequest, StatusCode::BAD_REQUEST);
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::BAD_REQUEST;
                // A client that has gone needs no answer.
                let _ = respond.send_response(response, true);
            }
        }
    }
}

impl Drop for Front<'_> {
    fn drop(&mut self) {
        self.lanes.trim(0);
    }
}
