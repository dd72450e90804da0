//! The tries of one request: which backends have failed it, and how. Bounds what may still be tried.

use std::{
    fmt::Write as _,
    io,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::pool::Pool;
use crate::balance::Outcome;

/// Backends that one request is sent to, at most.
const MAX_SENT: usize = 3;

/// Connections that one request waits for in vain, at most.
const MAX_UNREACHABLE: usize = 8;

/// Refusals after which a backend is asked again where there is no other: what it had to do may be done by then.
const MAX_REFUSALS: usize = 2;

#[derive(Default)]
pub(super) struct Tries {
    ids: Vec<u64>,
    /// Failed on a connection that was used before, or for the moment, which says nothing about the backend: it may go again,
    /// on a new one.
    stale: Vec<u64>,
    last: Option<Rc<Pool>>,
    sent: usize,
    unreachable: usize,
    refusals: usize,
    timed_out: bool,
    /// Site of a backend that was passed over because it has as many connections as it may.
    full: Option<Arc<str>>,
    text: String,
}

impl Tries {
    /// This backend only where there is no other.
    pub(super) fn rather_not(id: u64) -> Self {
        Self { ids: vec![id], stale: vec![id], ..Self::default() }
    }

    pub(super) fn has(&self, id: u64) -> bool {
        self.unreachable >= MAX_UNREACHABLE || self.ids.contains(&id)
    }

    /// Nothing has failed.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Nothing was sent to a backend so far.
    pub(super) fn is_first(&self) -> bool {
        self.sent == 0
    }

    pub(super) fn may_send_again(&self) -> bool {
        self.sent < MAX_SENT
    }

    pub(super) fn sent(&mut self) {
        self.sent += 1;
    }

    pub(super) fn unreachable(&mut self, pool: &Rc<Pool>, error: &io::Error) {
        self.unreachable += 1;
        self.failed(pool, &describe(error));
    }

    /// There are as many connections to the backend as there may be.
    pub(super) fn full(&mut self, pool: &Pool) {
        self.full = Some(Arc::clone(&pool.backend.site));
        self.ids.push(pool.backend.id);
    }

    /// Nothing has failed, but a backend was full, and of its site there is no other: the next one is for outages.
    pub(super) fn only_full(&self, next: Option<&str>) -> bool {
        self.is_empty() && self.full.as_deref().is_some_and(|site| Some(site) != next)
    }

    /// The connection was closed before anything was written to it.
    pub(super) fn unsent(&mut self, pool: &Rc<Pool>, reused: bool) {
        self.sent -= 1;
        if !reused {
            self.failed(pool, "closed the connection");
            pool.backend.observe(Outcome::Broken, Duration::ZERO);
        }
    }

    /// It did not take the request, as backends do that have enough to do.
    pub(super) fn refused(&mut self, pool: &Rc<Pool>) {
        self.sent -= 1;
        self.refusals += 1;
        self.failed(pool, "refused the request");
        if self.refusals <= MAX_REFUSALS {
            self.stale.push(pool.backend.id);
        }
    }

    /// `after`: the time since it was sent.
    pub(super) fn broken(&mut self, pool: &Rc<Pool>, cause: &str, reused: bool, after: Duration) {
        self.failed(pool, cause);
        if reused {
            pool.backend.doubt();
            self.stale.push(pool.backend.id);
        } else {
            pool.backend.observe(Outcome::Broken, after);
        }
    }

    pub(super) fn timed_out(&mut self, pool: &Rc<Pool>, limit: Duration) {
        self.failed(pool, &format!("no response within {limit:?}"));
        pool.backend.observe(Outcome::TimedOut, limit);
        self.timed_out = true;
    }

    /// The request has used up all of its time.
    pub(super) fn out_of_time(&mut self) {
        self.text.push_str("the time for the whole request is over\n");
        self.timed_out = true;
    }

    /// It answered that it cannot serve.
    pub(super) fn unavailable(&mut self, pool: &Rc<Pool>, status: u16, after: Duration) {
        self.failed(pool, &format!("answered {status}"));
        pool.backend.doubt();
        pool.backend.observe(Outcome::ServerError, after);
    }

    fn failed(&mut self, pool: &Rc<Pool>, cause: &str) {
        self.timed_out = false;
        self.ids.push(pool.backend.id);
        self.last = Some(Rc::clone(pool));
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "site {} backend {}: {cause}", pool.backend.site, pool.backend.address);
    }

    pub(super) fn can_forgive(&self) -> bool {
        !self.stale.is_empty()
    }

    /// Lets backends be tried again that have failed on an old connection alone. True if there are any.
    pub(super) fn forgive(&mut self) -> bool {
        let any = self.can_forgive();
        self.ids.retain(|id| !self.stale.contains(id));
        self.stale.clear();
        any
    }

    /// Another backend was found: the last one has cost a retry.
    pub(super) fn goes_on(&mut self) {
        if let Some(last) = self.last.take() {
            last.backend.detail.retries.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn last_timed_out(&self) -> bool {
        self.timed_out
    }

    /// A line for each failure.
    pub(super) fn text(&self) -> String {
        self.text.clone()
    }
}

/// Says what users search for, without the number of the error.
fn describe(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "no route to host".to_owned(),
        _ => format!("cannot connect: {error}"),
    }
}
