//! The forward step: request -> pick -> try, again elsewhere where that is safe -> the head of an answer. Knows no
//! protocol loop.
//!
//! What was not sent may go to any backend. What may have been sent goes again only if it is safe and has no body, nothing
//! of an answer was passed on, and the budget allows it. A body of which a part has gone is never sent twice.

use std::{io, rc::Rc, time::Instant};

use super::{
    exchange::Exchange,
    h1::{Attempt, Client, FIRST_BYTE, Failure, Upload},
    message::{Edits, RequestHead, ResponseHead},
    pool::{Connection, Pool},
    reply::Refusal,
    thread::Thread,
    tries::Tries,
};

/// Why there is no answer of a backend.
pub(super) enum Unanswered {
    Refused(Refusal),
    /// The client has gone, and wants none.
    Gone,
}

/// Finds a backend that answers; the head of the answer is in `response` then.
pub(super) async fn forward(
    thread: &Rc<Thread>,
    client: &mut Client,
    upload: &mut Upload,
    request: &RequestHead,
    response: &mut ResponseHead,
) -> Result<Exchange, Unanswered> {
    thread.budget.deposit();
    let tries = Tries::default();
    Forward { thread, client, upload, request, response, replayable: request.is_replayable(), tries }
        .run()
        .await
}

/// A request on its way to a backend.
struct Forward<'a> {
    thread: &'a Rc<Thread>,
    client: &'a mut Client,
    upload: &'a mut Upload,
    request: &'a RequestHead,
    response: &'a mut ResponseHead,
    replayable: bool,
    tries: Tries,
}

impl Forward<'_> {
    async fn run(mut self) -> Result<Exchange, Unanswered> {
        let mut revived = false;
        loop {
            let Some(pool) = self.pick() else {
                if self.tries.is_empty() && !revived && self.thread.revive().await {
                    revived = true;
                    continue;
                }
                return Err(self.refusal());
            };
            let busy = pool.backend.occupy();
            let mut connection = match self.connection(&pool).await {
                Ok(connection) => connection,
                Err(error) => {
                    self.tries.unreachable(&pool, &error);
                    continue;
                }
            };
            match self.send(&mut connection, &pool).await {
                Ok(()) => return Ok(Exchange { pool, connection, busy }),
                Err(Failure::Gone) => return Err(Unanswered::Gone),
                Err(Failure::Body(bad)) => return Err(Unanswered::Refused(bad.into())),
                Err(Failure::Unsent) => self.tries.unsent(&pool, connection.reused),
                Err(Failure::Broken(cause)) => {
                    self.tries.broken(&pool, &cause, connection.reused);
                    let again = self.replayable && self.tries.may_send_again() && self.has_another();
                    if !(again && self.thread.budget.withdraw(Instant::now())) {
                        return Err(self.refusal());
                    }
                }
                Err(Failure::TimedOut(limit)) => {
                    self.tries.timed_out(&pool, limit);
                    // After the short limit the retry is already decided and paid for.
                    if limit != FIRST_BYTE {
                        return Err(self.refusal());
                    }
                }
            }
        }
    }

    fn pick(&mut self) -> Option<Rc<Pool>> {
        let local = self.thread.local();
        let pick = |tries: &Tries| local.route.pick(|id| tries.has(id), |below| self.thread.random(below));
        let mut index = pick(&self.tries);
        if index.is_none() && self.tries.forgive() {
            index = pick(&self.tries);
        }
        let pool = Rc::clone(&local.pools[index?]);
        self.tries.goes_on();
        Some(pool)
    }

    /// A pooled connection at first, a new one once a request was sent: what closed one may have closed the others too.
    async fn connection(&self, pool: &Pool) -> io::Result<Connection> {
        let pooled = self.tries.is_first() && !self.request.upgrade;
        if pooled && !self.replayable {
            // A request that cannot be sent again must not meet a close that has come but was not noticed yet: after the
            // yield, this thread has seen all that the kernel has.
            tokio::task::yield_now().await;
        }
        match pooled.then(|| pool.take(Instant::now())).flatten() {
            Some(connection) => Ok(connection),
            None => pool.connect().await,
        }
    }

    async fn send(&mut self, connection: &mut Connection, pool: &Pool) -> Result<(), Failure> {
        self.tries.sent();
        self.request.write(connection.wire.output.bytes(), Edits::default());
        let (tries, replayable, thread) = (&self.tries, self.replayable, self.thread);
        let give_up = || {
            let elsewhere = |id| id == pool.backend.id || tries.has(id);
            replayable
                && tries.may_send_again()
                && thread.local().route.has_another(elsewhere)
                && thread.budget.withdraw(Instant::now())
        };
        let attempt = Attempt {
            client: self.client,
            upload: self.upload,
            backend: &mut connection.wire,
            request: self.request,
            response: self.response,
        };
        let sent = attempt.run(give_up).await;
        match sent {
            // A part of the body that was on its way is lost.
            Err(Failure::Unsent) if self.upload.has_begun() => {
                Err(Failure::Broken("closed the connection".to_owned()))
            }
            sent => sent,
        }
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
