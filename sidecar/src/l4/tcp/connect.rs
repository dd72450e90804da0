//! Pick -> connect, until one backend is there or there is nobody left to ask. Nothing of the client's has been sent by then but
//! its request for TLS, so that every failure may be tried again elsewhere.
//!
//! A backend that does not answer at once is not waited for alone: another is asked beside it, and the first one there
//! serves. So a black hole costs a fraction of a second, and not the whole time-out.

use std::{io, pin::pin, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    settings::Settings,
    thread::{Registered, Thread},
};
use crate::{
    balance::{Backend, Busy, Outcome, Picked, Route, Wish, hash},
    l4::metrics::{Cause, Counters},
    net::{
        self, Stream,
        postgres::request_tls,
        proxy_protocol::{self, Ends},
    },
};

/// Another backend is asked beside one that has not answered after this time.
const BESIDE: Duration = Duration::from_millis(300);

/// A connection to a backend, in that backend's count and in the thread's list.
pub(super) struct Met<'a> {
    pub(super) stream: Stream,
    pub(super) busy: Busy<Counters>,
    pub(super) going: Registered<'a>,
    /// To the client's request for TLS, if the backend was asked.
    pub(super) answer: Option<u8>,
}

/// A client that is to be connected.
pub(super) struct Meeting<'a, 'b> {
    thread: &'a Thread,
    settings: &'b Settings,
    /// Where it is, if it is anywhere and somebody wants to know.
    ends: Option<Ends>,
    /// What each backend is told first.
    preface: Vec<u8>,
    /// Whether backends are asked for TLS, as the client asks.
    for_tls: bool,
    asked: &'b mut Asked,
}

/// Backends that a client was not served by, in any of its meetings.
#[derive(Default)]
pub(super) struct Asked {
    backends: Vec<Arc<Backend<Counters>>>,
    /// What all tries together have taken of those that there may be.
    tries: u32,
    /// Tries before it began anew.
    before: u32,
}

impl Asked {
    pub(super) fn last(&self) -> Option<&Arc<Backend<Counters>>> {
        self.backends.last()
    }

    /// All tries.
    pub(super) fn count(&self) -> u32 {
        self.before + self.tries
    }
}

/// How one try at one backend has ended.
struct Try {
    busy: Busy<Counters>,
    result: io::Result<(Stream, Option<u8>)>,
    after: Duration,
}

impl<'a, 'b> Meeting<'a, 'b> {
    pub(super) fn new(
        thread: &'a Thread,
        settings: &'b Settings,
        ends: Option<Ends>,
        for_tls: bool,
        asked: &'b mut Asked,
    ) -> Self {
        let preface = settings.tells_ends.map(|version| proxy_protocol::write(version, ends));
        Self { thread, settings, ends, preface: preface.unwrap_or_default(), for_tls, asked }
    }

    /// Connects to a backend. Where none can be connected to, this waits a moment for one to come back.
    pub(super) async fn meet(&mut self) -> Result<Met<'a>, Cause> {
        match self.race().await {
            Err(Cause::NoBackend | Cause::Connect) if self.thread.revive().await => {
                *self.asked = Asked { before: self.asked.count(), ..Asked::default() };
                self.race().await
            }
            result => result,
        }
    }

    async fn race(&mut self) -> Result<Met<'a>, Cause> {
        let mut tries = FuturesUnordered::new();
        let mut left = self.settings.tries.saturating_sub(self.asked.tries);
        // One that was asked before has left at once.
        let mut why = if self.asked.tries == 0 { Cause::NoBackend } else { Cause::Connect };
        loop {
            if left > 0 {
                match self.pick(tries.is_empty()).await {
                    Ok(busy) => {
                        left -= 1;
                        self.asked.tries += 1;
                        self.asked.backends.push(Arc::clone(busy.backend()));
                        tries.push(attempt(busy, &self.preface, self.for_tls, self.settings));
                    }
                    Err(cause) if tries.is_empty() => {
                        return Err(if self.asked.backends.is_empty() { cause } else { why });
                    }
                    // Those who were asked may still answer.
                    Err(_) => left = 0,
                }
            }
            let beside = pin!(sleep(BESIDE));
            tokio::select! {
                biased;
                Some(Try { busy, result, after }) = tries.next() => match result {
                    Ok((stream, answer)) => {
                        busy.backend().detail.connected();
                        busy.backend().observe(Outcome::Good, after);
                        // Who is slower than another that was asked later may be out of order.
                        if !tries.is_empty() {
                            self.asked.backends.iter().filter(|slow| slow.id != busy.backend().id).for_each(|slow| slow.doubt());
                        }
                        let given_up = !tries.is_empty();
                        drop(tries);
                        if given_up {
                            self.thread.queue.freed();
                        }
                        let going = self.thread.register(busy.backend());
                        return Ok(Met { stream, busy, going, answer });
                    }
                    Err(error) => {
                        why = Cause::Connect;
                        self.failed(&busy, &error, after);
                        drop(busy);
                        self.thread.queue.freed();
                    }
                },
                () = beside, if left > 0 => {}
                else => return Err(why),
            }
        }
    }

    fn failed(&self, busy: &Busy<Counters>, error: &io::Error, after: Duration) {
        let backend = busy.backend();
        backend.detail.connect_failed();
        backend.observe(Outcome::ConnectFailed, after);
        let (listener, address) = (&self.thread.listener, &backend.address);
        tracing::debug!(%listener, backend = %address, %error, "cannot connect, another backend is tried");
    }

    /// A backend that was not asked yet. `waits`: in the queue, while all are full.
    async fn pick(&self, waits: bool) -> Result<Busy<Counters>, Cause> {
        let queue = &self.thread.queue;
        let others = self.asked.backends.is_empty() && queue.waiting() > 0;
        if !others {
            match self.look()? {
                Some(busy) => return Ok(busy),
                None if !waits => return Err(Cause::QueueFull),
                None => {}
            }
        }
        let Some(place) = queue.enter(self.settings.max_queued) else { return Err(Cause::QueueFull) };
        let end = Instant::now() + self.settings.queue_timeout;
        let mut looks = !others;
        loop {
            let mut turn = pin!(place.turn());
            turn.as_mut().enable();
            if looks && let Some(busy) = self.look()? {
                return Ok(busy);
            }
            looks = true;
            timeout_at(end, turn).await.map_err(|_| Cause::QueueTimeout)?;
        }
    }

    /// None while all are full.
    fn look(&self) -> Result<Option<Busy<Counters>>, Cause> {
        let route = self.thread.route();
        loop {
            match route.pick(&self.wish(&route), |id| self.was_asked(id), |below| self.thread.random(below)) {
                Picked::Full => return Ok(None),
                Picked::None => return Err(Cause::NoBackend),
                Picked::Backend(index) => {
                    // Another thread may have taken the last place.
                    if let Some(busy) = route.occupy(index) {
                        return Ok(Some(busy));
                    }
                }
            }
        }
    }

    fn was_asked(&self, id: u64) -> bool {
        self.asked.backends.iter().any(|backend| backend.id == id)
    }

    fn wish(&self, route: &Route<Counters>) -> Wish {
        let source = self.ends.filter(|_| route.hashes_source()).map(|ends| ends.source.ip().to_canonical());
        Wish { hash: source.map(|ip| hash(ip.to_string().as_bytes())) }
    }
}

async fn attempt(busy: Busy<Counters>, preface: &[u8], for_tls: bool, settings: &Settings) -> Try {
    let start = Instant::now();
    let result = open(busy.backend(), preface, for_tls, settings).await;
    Try { busy, result, after: start.elapsed() }
}

async fn open(
    backend: &Backend<Counters>,
    preface: &[u8],
    for_tls: bool,
    settings: &Settings,
) -> io::Result<(Stream, Option<u8>)> {
    let end = Instant::now() + settings.connect;
    let mut stream = net::connect(backend.target(), &[], preface, settings.connect).await?;
    stream.socket().break_unacknowledged(&settings.dead_hosts)?;
    if !for_tls {
        return Ok((stream, None));
    }
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer to SSLRequest in time");
    let answer = Some(timeout_at(end, request_tls(&mut stream)).await.map_err(late)??);
    Ok((stream, answer))
}
