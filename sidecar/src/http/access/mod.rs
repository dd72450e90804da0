//! The access log: what is noted of a request while it is under way -> one line when it has ended, however it ends, if it is
//! wanted -> a batch of its thread -> [`Lines`]; and where its trace is recorded, one span -> [`Exporter`]. A check of a backend
//! is a line of its own.
//!
//! Secrets never come this far: of a head only method, host, path and user agent are read, and of the path's query the
//! values of secret parameters are left out.

mod check;
mod line;
mod redact;
mod span;

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;

use std::{
    cell::{Cell, OnceCell, RefCell},
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crds::{
    config::{AccessLog, AccessLogFormat},
    units::StatusRange,
};

use self::{
    line::{Facts, Kind},
    redact::Redact,
    span::Context,
};
use super::{admit::Gate, message::RequestHead, pool::Pool, thread::Thread, trace::Trace};
use crate::{
    net::{Stream, tls::Identity},
    telemetry::{journal::Journal, lines::Lines, spans::Exporter},
};

/// A listener's settings of its access log, ready for use.
#[derive(Debug)]
pub(super) struct Access {
    format: AccessLogFormat,
    /// Without any, all are wanted.
    statuses: Box<[StatusRange]>,
    errors_only: bool,
    one_in: usize,
    redact: Redact,
    lines: Lines,
}

/// Where a listener's spans go.
#[derive(Debug)]
pub(super) struct Spans {
    exporter: Arc<Exporter>,
    redact: Redact,
}

/// Who is on the other side of a connection.
#[derive(Debug, Default)]
pub(super) struct Peer {
    /// Those who connect to a Unix socket have none.
    pub(super) address: Option<SocketAddr>,
    /// Of the client's certificate, which the handshake has verified.
    pub(super) identity: Option<Identity>,
    /// It speaks TLS.
    secure: bool,
    shown: OnceCell<String>,
}

/// What a connection's request has come to so far.
#[derive(Default)]
pub(super) struct Note {
    pub(super) peer: Rc<Peer>,
    pool: RefCell<Option<Rc<Pool>>>,
    tries: Cell<u32>,
    status: Cell<Option<u16>>,
    received: Cell<u64>,
    sent: Cell<u64>,
    cause: Cell<Option<&'static str>>,
}

/// One request in the log: its line is written when this is dropped.
pub(super) struct Entry<'a> {
    thread: &'a Thread,
    gate: &'a Gate,
    /// None for one that could not be read.
    request: Option<&'a RequestHead>,
    note: Rc<Note>,
    trace: Option<Trace>,
    started: Instant,
    ended: bool,
}

impl Access {
    pub(super) fn new(settings: &AccessLog, lines: &Lines) -> Self {
        Self {
            format: settings.format,
            statuses: settings.statuses.as_slice().into(),
            errors_only: settings.errors_only,
            one_in: settings.sample_one_in.get() as usize,
            redact: Redact::new(&settings.redact),
            lines: lines.clone(),
        }
    }

    /// Whether a line is to be written at all.
    fn wants(&self, status: Option<u16>, failed: bool) -> bool {
        let among = |status| self.statuses.iter().any(|range| range.contains(status));
        (failed || !self.errors_only) && (self.statuses.is_empty() || status.is_some_and(among))
    }
}

impl Spans {
    /// `log` is the access log of the same listener, whose secrets are secrets here too.
    pub(super) fn new(exporter: Arc<Exporter>, log: Option<&AccessLog>) -> Self {
        Self { exporter, redact: Redact::new(log.map_or(&[], |log| &log.redact)) }
    }
}

impl Peer {
    fn of(stream: &Stream) -> Self {
        Self {
            address: stream.peer_address(),
            identity: stream.peer_identity(),
            secure: stream.is_tls(),
            shown: OnceCell::new(),
        }
    }

    #[cfg(test)]
    pub(super) fn known_as(identity: Option<Identity>) -> Self {
        Self { identity, ..Self::default() }
    }

    fn shown(&self) -> Option<&str> {
        self.address.map(|address| self.shown.get_or_init(|| address.to_string()).as_str())
    }
}

impl Note {
    pub(super) fn of(stream: &Stream) -> Rc<Self> {
        Self::about(Rc::new(Peer::of(stream)))
    }

    /// Of one of the requests that a client has under way at once.
    pub(super) fn about(peer: Rc<Peer>) -> Rc<Self> {
        Rc::new(Self { peer, ..Self::default() })
    }

    fn clear(&self) {
        self.pool.take();
        self.tries.set(0);
        self.status.set(None);
        self.received.set(0);
        self.sent.set(0);
        self.cause.set(None);
    }

    /// A backend was picked.
    pub(super) fn tried(&self, pool: &Rc<Pool>) {
        self.tries.set(self.tries.get() + 1);
        self.pool.replace(Some(Rc::clone(pool)));
    }

    /// An answer has begun.
    pub(super) fn answered(&self, status: u16) {
        self.status.set(Some(status));
    }

    /// Bytes of the request's body so far, and of another part of the answer's.
    pub(super) fn moved(&self, received: u64, sent: u64) {
        self.received.set(received);
        self.sent.set(self.sent.get() + sent);
    }

    /// Why there is no answer of a backend, or not all of it. The first cause counts.
    pub(super) fn caused_by(&self, cause: &'static str) {
        self.cause.set(self.cause.get().or(Some(cause)));
    }
}

impl<'a> Entry<'a> {
    pub(super) fn begin(
        thread: &'a Thread,
        gate: &'a Gate,
        note: &Rc<Note>,
        request: Option<&'a RequestHead>,
    ) -> Self {
        note.clear();
        Self {
            thread,
            gate,
            request,
            note: Rc::clone(note),
            trace: None,
            started: Instant::now(),
            ended: false,
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    pub(super) fn belongs_to(&mut self, trace: Option<Trace>) {
        self.trace = trace;
    }

    /// The request has ended, perhaps because the client has `gone`.
    pub(super) fn ends(&mut self, gone: bool) {
        self.ended = true;
        // A tunnel ends as it ends.
        if gone && self.note.status.get() != Some(101) {
            self.note.caused_by("ClientGone");
        }
    }

    /// Whether it came to nothing, or was answered with such a status or a higher one.
    fn failed(&self, status: u16) -> bool {
        self.note.cause.get().is_some() || self.note.status.get().is_none_or(|of| of >= status)
    }

    /// Whether it gets a line: some get one whatever share of the requests does.
    fn is_wanted(&self, access: &Access) -> bool {
        access.wants(self.note.status.get(), self.failed(400))
            && (access.one_in == 1 || self.failed(500) || self.thread.random(access.one_in) == 0)
    }

    /// Calls `tell` with all there is to say, at this time.
    fn with_facts(&self, time: &[u8], duration: Duration, tell: impl FnOnce(&Facts<'_>)) {
        let pool = self.note.pool.borrow();
        let backend = pool.as_ref().map(|pool| &pool.backend);
        let fields = self.request.map(|request| &request.fields);
        tell(&Facts {
            time,
            listener: &self.thread.listener,
            client: self.note.peer.shown(),
            method: self.request.map(RequestHead::method),
            host: self.request.map(RequestHead::host).filter(|host| !host.is_empty()),
            path: self.request.map(RequestHead::path),
            status: self.note.status.get(),
            received: self.note.received.get(),
            sent: self.note.sent.get(),
            duration,
            site: backend.map(|backend| &*backend.site),
            backend: backend.map(|backend| &*backend.shown),
            tries: self.note.tries.get(),
            trace: self.trace.as_ref().map(Trace::id),
            user_agent: fields.and_then(|fields| fields.get("user-agent")),
            cause: self.note.cause.get(),
            kind: Kind::Request,
        });
    }

    fn write(&self, access: &Access, journal: &mut Journal) {
        let duration = self.started.elapsed();
        journal.add(&access.lines, duration, |out, time| {
            self.with_facts(time, duration, |facts| line::write(out, access.format, &access.redact, facts));
        });
    }

    fn export(&self, spans: &Spans, trace: &Trace) {
        let context = Context {
            trace,
            client: self.note.peer.address,
            secure: self.note.peer.secure,
            ended: SystemTime::now(),
            redact: &spans.redact,
        };
        self.with_facts(&[], self.started.elapsed(), |facts| {
            if let Some(span) = span::span(facts, &context) {
                spans.exporter.offer(span);
            }
        });
    }
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.note.caused_by("CutOff");
        }
        if let Some(access) = self.gate.access()
            && self.is_wanted(access)
        {
            self.write(access, &mut self.thread.journal.borrow_mut());
        }
        if let (Some(spans), Some(trace)) = (self.gate.spans(), &self.trace)
            && trace.ids().is_some()
        {
            self.export(spans, trace);
        }
        // A backend that has gone is not held by an idle connection.
        self.note.pool.take();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_has_what_is_asked_for_and_nothing_else() {
        let lines = Lines::start(std::io::sink(), &mut Default::default()).unwrap();
        let range = |text: &str| text.parse::<StatusRange>().unwrap();
        let wants = |statuses: &[&str], errors_only: bool, status: Option<u16>, failed: bool| {
            let statuses = statuses.iter().map(|text| range(text)).collect();
            let settings = AccessLog { statuses, errors_only, ..AccessLog::default() };
            Access::new(&settings, &lines).wants(status, failed)
        };
        for (statuses, errors_only, status, failed, wanted) in [
            (&[][..], false, Some(200), false, true),
            (&[], false, None, true, true),
            (&[], true, Some(200), false, false),
            (&[], true, Some(200), true, true),
            (&[], true, None, true, true),
            (&["404", "500-599"], false, Some(404), true, true),
            (&["404", "500-599"], false, Some(503), true, true),
            (&["404", "500-599"], false, Some(403), true, false),
            (&["404", "500-599"], false, None, true, false),
            (&["200-299"], false, Some(206), false, true),
            (&["200-299"], true, Some(206), false, false),
            (&["200-299"], true, Some(206), true, true),
        ] {
            let told = wants(statuses, errors_only, status, failed);
            assert_eq!(told, wanted, "{statuses:?} {errors_only} {status:?} {failed}");
        }
    }
}
