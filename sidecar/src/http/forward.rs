//! The forward step: request -> pick -> try, again elsewhere where that is safe -> response. Knows no protocol loop.
//!
//! What was not sent may go to any backend. What may have been sent goes again only if it is safe and has no body, nothing
//! of an answer was passed on, and the budget allows it. A streamed body is never sent twice.

use std::{io, rc::Rc, sync::Arc, time::Instant};

use http::{Request, Response, StatusCode};
use hyper::{
    body::{Body, Incoming},
    ext::on_informational,
    upgrade::OnUpgrade,
};

use super::{
    attempt::{self, FIRST_BYTE, Failure},
    body::{Gate, RequestBody, ResponseBody, Upload},
    client::Client,
    connection::Tunnel,
    exchange::{Exchange, Inflight},
    headers::{is_replayable, prepare_request, prepare_response},
    pool::{Connection, Pool},
    reply::Refusal,
    thread::Thread,
    tries::Tries,
    upgrade::tunnel,
};

/// Answers a request, by a backend or in the sidecar's own words.
pub(super) async fn forward(
    thread: &Rc<Thread>,
    client: &Arc<Client>,
    joined: &Tunnel,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let inflight = Inflight::start(thread, client);
    thread.budget.deposit();
    match Forward::new(thread, client, request) {
        Ok(forward) => forward.run(inflight, joined).await,
        Err(refusal) => Err(refusal),
    }
    .unwrap_or_else(|refusal| {
        tracing::debug!(listener = %thread.listener, %refusal, "answering instead of a backend");
        let response = refusal.into_response();
        thread.counters.answered(response.status());
        response
    })
}

/// A request on its way to a backend.
struct Forward<'a> {
    thread: &'a Rc<Thread>,
    /// Gone while it is being sent.
    request: Option<Request<RequestBody>>,
    replayable: bool,
    upload: Option<Rc<Upload>>,
    gate: Option<Arc<Gate>>,
    upgrade: Option<OnUpgrade>,
    tries: Tries,
}

impl<'a> Forward<'a> {
    fn new(
        thread: &'a Rc<Thread>,
        client: &Arc<Client>,
        mut request: Request<Incoming>,
    ) -> Result<Self, Refusal> {
        let wishes = prepare_request(&mut request)?;
        let upgrade = wishes.upgrade.then(|| hyper::upgrade::on(&mut request));
        let without_body = request.body().is_end_stream();
        let replayable = is_replayable(request.method(), without_body) && upgrade.is_none();
        let gate = (wishes.continues && !without_body).then(Arc::<Gate>::default);
        let mut upload = None;
        let mut request = request.map(|body| {
            if without_body {
                return RequestBody::empty();
            }
            let (body, watched) = RequestBody::stream(body, gate.clone(), client);
            upload = Some(watched);
            body
        });
        if let Some(gate) = gate.clone() {
            on_informational(&mut request, move |response| {
                if response.status() == StatusCode::CONTINUE {
                    gate.open();
                }
            });
        }
        Ok(Self {
            thread,
            request: Some(request),
            replayable,
            upload,
            gate,
            upgrade,
            tries: Tries::default(),
        })
    }

    async fn run(mut self, inflight: Inflight, joined: &Tunnel) -> Result<Response<ResponseBody>, Refusal> {
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
                Ok(response) => {
                    let upload = self.upload.take();
                    let connection = Some(connection);
                    let exchange = Exchange { inflight, pool, connection, busy, upload, received: 0 };
                    return self.respond(response, exchange, joined);
                }
                Err(Failure::Client) => return Err(Refusal::BodyCutShort),
                Err(Failure::Unsent(request)) => {
                    self.request = Some(*request);
                    self.tries.unsent(&pool, connection.reused);
                }
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
        let pooled = self.tries.is_first() && self.upgrade.is_none();
        while let Some(connection) = pooled.then(|| pool.take(Instant::now())).flatten() {
            if self.replayable {
                return Ok(connection);
            }
            // A request that cannot be sent again must not meet a close that has come but was not noticed yet: after the
            // yield, this thread has seen all that the kernel has.
            tokio::task::yield_now().await;
            if connection.sender.is_ready() {
                return Ok(connection);
            }
        }
        pool.connect().await
    }

    async fn send(
        &mut self,
        connection: &mut Connection,
        pool: &Pool,
    ) -> Result<Response<Incoming>, Failure> {
        let request = self.request.take().unwrap_or_else(|| Request::new(RequestBody::empty()));
        if self.replayable {
            self.request = Some(copy(&request));
        }
        self.tries.sent();
        let give_up = || {
            let elsewhere = |id| id == pool.backend.id || self.tries.has(id);
            self.replayable
                && self.tries.may_send_again()
                && self.thread.local().route.has_another(elsewhere)
                && self.thread.budget.withdraw(Instant::now())
        };
        attempt::send(connection, request, self.upload.as_ref(), give_up).await
    }

    fn has_another(&self) -> bool {
        self.tries.can_forgive() || self.thread.local().route.has_another(|id| self.tries.has(id))
    }

    fn respond(
        self,
        mut response: Response<Incoming>,
        exchange: Exchange,
        joined: &Tunnel,
    ) -> Result<Response<ResponseBody>, Refusal> {
        if let Some(gate) = &self.gate {
            gate.shut();
        }
        let status = response.status();
        let switched = status == StatusCode::SWITCHING_PROTOCOLS;
        exchange.busy.backend().detail.answered(status);
        *response.version_mut() = http::Version::HTTP_11;
        prepare_response(response.headers_mut(), switched);
        if !switched {
            return Ok(response.map(|body| ResponseBody::forwarded(body, exchange)));
        }
        let Some(client) = self.upgrade else {
            return Err(Refusal::Switched { listener: self.thread.listener.to_string() });
        };
        let backend = hyper::upgrade::on(&mut response);
        joined.replace(Some(Box::pin(tunnel(client, backend, exchange))));
        Ok(response.map(|_| ResponseBody::empty()))
    }

    fn refusal(&self) -> Refusal {
        let listener = self.thread.listener.to_string();
        if self.tries.is_empty() {
            return Refusal::NoBackend { listener, reasons: self.thread.local().route.unavailable.clone() };
        }
        let tries = self.tries.text();
        if self.tries.last_timed_out() {
            Refusal::TimedOut { listener, tries }
        } else {
            Refusal::Failed { listener, tries }
        }
    }
}

/// The same request once more; it has no body.
fn copy(request: &Request<RequestBody>) -> Request<RequestBody> {
    let mut copy = Request::new(RequestBody::empty());
    copy.method_mut().clone_from(request.method());
    copy.uri_mut().clone_from(request.uri());
    copy.headers_mut().clone_from(request.headers());
    copy
}
