//! The forward step: request -> pick -> try, again elsewhere where that is safe -> the head of an answer. Knows no
//! protocol loop.
//!
//! What was not sent may go to any backend. What may have been sent goes again only if it is safe and has no body, nothing
//! of an answer was passed on, and the budget allows it. A body of which a part has gone is never sent twice.

use std::{
    io,
    rc::Rc,
    time::{Duration, Instant},
};

use super::{
    exchange::Exchange,
    h1::{Attempt, Client, Failure, Upload, Wire},
    message::{Edits, RequestHead, ResponseHead},
    pool::{Connection, NoConnection, Pool},
    reply::Refusal,
    settings::Timeouts,
    thread::Thread,
    tries::Tries,
    verdict::{LOOKED_AT, Verdict},
};
use crate::balance::{Picked, Wish, hash};

/// Why there is no answer of a backend.
pub(super) enum Unanswered {
    Refused(Refusal),
    /// The client has gone, and wants none.
    Gone,
}

/// A request, and what is to be sent of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    pub(super) request: &'a RequestHead,
    pub(super) edits: Edits<'a>,
    /// The rest of an answer of which this backend has sent the beginning, and failed.
    pub(super) resumes: Option<u64>,
}

/// Finds a backend that answers; the head of the answer is in `response` then.
pub(super) async fn forward(
    thread: &Rc<Thread>,
    client: &mut Client,
    upload: &mut Upload,
    call: Call<'_>,
    response: &mut ResponseHead,
) -> Result<Exchange, Unanswered> {
    thread.budget.deposit();
    let tries = call.resumes.map(Tries::rather_not).unwrap_or_default();
    let replayable = call.request.is_replayable();
    let local = thread.local();
    let hashed = local.route.hash_header().and_then(|name| call.request.fields.get(name));
    let wish = Wish { hash: hashed.map(hash) };
    Forward { thread, client, upload, call, wish, response, replayable, tries }.run().await
}

/// A request on its way to a backend.
struct Forward<'a> {
    thread: &'a Rc<Thread>,
    client: &'a mut Client,
    upload: &'a mut Upload,
    call: Call<'a>,
    wish: Wish,
    response: &'a mut ResponseHead,
    replayable: bool,
    tries: Tries,
}

impl Forward<'_> {
    async fn run(mut self) -> Result<Exchange, Unanswered> {
        let mut revived = false;
        loop {
            if self.client.overdue().is_some() {
                self.tries.out_of_time();
                return Err(self.refusal());
            }
            let Some(pool) = self.pick()? else {
                if self.tries.is_empty()
                    && !revived
                    && self.client.in_time(self.thread.revive()).await != Some(false)
                {
                    revived = true;
                    continue;
                }
                return Err(self.refusal());
            };
            self.client.note.tried(&pool);
            let busy = pool.backend.occupy();
            let mut connection = match self.connection(&pool).await {
                Ok(connection) => connection,
                Err(NoConnection::Full) => {
                    self.tries.full(&pool);
                    continue;
                }
                Err(NoConnection::Failed(error)) => {
                    self.tries.unreachable(&pool, &error);
                    continue;
                }
            };
            // The clock is read only where requests go by latencies.
            let sent = self.thread.local().route.measures().then(Instant::now);
            let latency = || sent.map_or(Duration::ZERO, |sent| sent.elapsed());
            match self.send(&mut connection, &pool).await {
                Ok(()) => {
                    let latency = latency();
                    let verdict = self.judge(&mut connection.wire).await;
                    let elsewhere = verdict == Verdict::Unavailable && self.may_go_elsewhere(&pool);
                    if !(elsewhere && self.thread.budget.withdraw(Instant::now())) {
                        return Ok(Exchange { pool, connection, busy, outcome: verdict.outcome(), latency });
                    }
                    self.tries.unavailable(&pool, self.response.status, latency);
                }
                Err(Failure::Gone) => return Err(Unanswered::Gone),
                Err(Failure::Body(bad)) => return Err(Unanswered::Refused(bad.into())),
                Err(Failure::TooLarge(most)) => {
                    return Err(Unanswered::Refused(Refusal::BodyTooLarge { most }));
                }
                Err(Failure::Unsent) => self.tries.unsent(&pool, connection.reused),
                Err(Failure::Refused) => self.tries.refused(&pool),
                Err(Failure::Broken(cause)) => {
                    self.tries.broken(&pool, &cause, connection.reused, latency());
                    let again = self.replayable && self.tries.may_send_again() && self.has_another();
                    if !(again && self.thread.budget.withdraw(Instant::now())) {
                        return Err(self.refusal());
                    }
                }
                // The retry is already paid for.
                Err(Failure::Slow(limit)) => self.tries.timed_out(&pool, limit),
                Err(Failure::TimedOut(limit)) => {
                    self.tries.timed_out(&pool, limit);
                    return Err(self.refusal());
                }
            }
        }
    }

    fn pick(&mut self) -> Result<Option<Rc<Pool>>, Unanswered> {
        let local = self.thread.local();
        let pick = |tries: &Tries| {
            local.route.pick(&self.wish, |id| tries.has(id), |below| self.thread.random(below))
        };
        let mut picked = pick(&self.tries);
        if picked == Picked::None && self.tries.forgive() {
            picked = pick(&self.tries);
        }
        let pool = match picked {
            Picked::Backend(index) => Some(&local.pools[index]),
            Picked::Full if self.tries.is_empty() => return Err(self.full()),
            Picked::Full | Picked::None => None,
        };
        if self.tries.only_full(pool.map(|pool| &*pool.backend.site)) {
            return Err(self.full());
        }
        let Some(pool) = pool else { return Ok(None) };
        self.tries.goes_on();
        Ok(Some(Rc::clone(pool)))
    }

    fn full(&self) -> Unanswered {
        Unanswered::Refused(Refusal::Full { listener: self.thread.listener.to_string() })
    }

    /// A pooled connection at first, a new one once a request was sent: what closed one may have closed the others too.
    async fn connection(&self, pool: &Rc<Pool>) -> Result<Connection, NoConnection> {
        let pooled = self.tries.is_first() && !self.call.request.upgrade;
        if pooled && !self.replayable {
            // A request that cannot be sent again must not meet a close that has come but was not noticed yet: after the
            // yield, this thread has seen all that the kernel has.
            tokio::task::yield_now().await;
        }
        let Timeouts { connect, keep_alive, .. } = self.client.timeouts;
        match pooled.then(|| pool.take(Instant::now(), keep_alive)).flatten() {
            Some(connection) => Ok(connection),
            None => {
                // On the heap, since it is large and rare: otherwise each idle client would hold room for it.
                let opened =
                    self.client.in_time(Box::pin(pool.connect(self.call.request.upgrade, connect))).await;
                opened.unwrap_or_else(|| Err(NoConnection::Failed(io::ErrorKind::TimedOut.into())))
            }
        }
    }

    async fn send(&mut self, connection: &mut Connection, pool: &Pool) -> Result<(), Failure> {
        self.tries.sent();
        self.call.request.write(connection.wire.output.bytes(), self.call.edits);
        let (tries, replayable, thread) = (&self.tries, self.replayable, self.thread);
        let give_up =
            || may_go_elsewhere(thread, tries, replayable, pool) && thread.budget.withdraw(Instant::now());
        let attempt = Attempt {
            client: self.client,
            upload: self.upload,
            backend: &mut connection.wire,
            request: self.call.request,
            response: self.response,
            passes_interim: self.call.resumes.is_none(),
        };
        let sent = attempt.run(give_up).await;
        match sent {
            // No answer to this request, but the last word of a connection that was idle for too long.
            Ok(()) if self.replayable && connection.reused && self.response.is_idle_timeout() => {
                Err(Failure::Broken("closed the connection".to_owned()))
            }
            // A part of the body that was on its way is lost.
            Err(Failure::Unsent | Failure::Refused) if self.upload.has_begun() => {
                Err(Failure::Broken("closed the connection".to_owned()))
            }
            sent => sent,
        }
    }

    /// What the answer says of its backend. A 503 tells more in its body.
    async fn judge(&mut self, backend: &mut Wire) -> Verdict {
        if self.response.status != 503 {
            return Verdict::of(self.response, &[]);
        }
        self.client.peek(backend, self.response.framing, LOOKED_AT).await;
        Verdict::of(self.response, backend.input())
    }

    fn may_go_elsewhere(&self, pool: &Pool) -> bool {
        may_go_elsewhere(self.thread, &self.tries, self.replayable, pool)
    }

    fn has_another(&self) -> bool {
        self.tries.can_forgive() || self.thread.local().route.has_another(|id| self.tries.has(id))
    }

    fn refusal(&self) -> Unanswered {
        let listener = self.thread.listener.to_string();
        if self.tries.is_empty() {
            let reasons = self.thread.local().route.unavailable.clone();
            return Unanswered::Refused(Refusal::NoBackend { listener, reasons });
        }
        let tries = self.tries.text();
        Unanswered::Refused(if self.tries.last_timed_out() {
            Refusal::TimedOut { listener, tries }
        } else {
            Refusal::Failed { listener, tries }
        })
    }
}

/// Whether a request that this backend has failed can be sent to another.
fn may_go_elsewhere(thread: &Thread, tries: &Tries, replayable: bool, pool: &Pool) -> bool {
    let tried = |id| id == pool.backend.id || tries.has(id);
    replayable && tries.may_send_again() && thread.local().route.has_another(tried)
}
