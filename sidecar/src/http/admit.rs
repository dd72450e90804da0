//! What a listener asks of a request before it goes to a backend, and what it adds to it: one snapshot, which a new
//! configuration replaces for the requests that come after it.
//!
//! limits -> authentication -> trace. What a limit has counted stays for as long as its settings do. What the listener answers
//! itself is not limited, so that who watches it is heard while it is busy.

use std::{net::IpAddr, rc::Rc, sync::Arc, time::Instant};

use crds::config::{self, HttpListener, RateLimitScope, Tracing};

use super::{
    access::{Access, Peer, Spans},
    auth::{AuthError, Authenticator, Keyring},
    message::RequestHead,
    own_paths::OwnPath,
    reply::Refusal,
    thread::Thread,
    trace::Trace,
};
use crate::{
    limits::{Exceeded, RateLimit},
    telemetry::{
        lines::Lines,
        spans::{ExportError, Exporters},
    },
};

/// What the gates of all listeners share.
#[derive(Debug, Clone)]
pub struct Means {
    pub lines: Lines,
    pub keyring: Keyring,
    pub exporters: Exporters,
}

/// Why a gate cannot be put up: the field of the listener, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    #[error("authentication.{0}")]
    Authentication(#[from] AuthError),
    #[error("tracing.export: {0}")]
    Export(#[from] ExportError),
}

/// A listener's standard stack.
#[derive(Debug, Default)]
pub struct Gate {
    access: Option<Access>,
    /// For the checks of backends.
    checks: Option<Access>,
    tracing: Option<Tracing>,
    spans: Option<Spans>,
    limits: Vec<Limit>,
    authenticator: Option<Authenticator>,
}

/// A request that may go on.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) trace: Option<Trace>,
    /// Lines that tell the backend who the client is.
    pub(super) lines: Option<Rc<[u8]>>,
}

/// One limit on requests.
#[derive(Debug, Clone)]
struct Limit {
    settings: Arc<config::RateLimit>,
    rate: Arc<RateLimit>,
}

impl Gate {
    /// Reads what clients are known by. `before` is the gate that this one replaces.
    pub fn new(config: &HttpListener, means: &Means, before: Option<&Self>) -> Result<Self, GateError> {
        let limit = |settings: &config::RateLimit| {
            let kept = before.and_then(|gate| gate.limits.iter().find(|limit| *limit.settings == *settings));
            kept.cloned().unwrap_or_else(|| Limit::new(settings))
        };
        let authenticator = config.authentication.as_ref();
        let log = config.access_log.as_ref();
        let export = config.tracing.as_ref().and_then(|tracing| tracing.export.as_ref());
        let exporter = export.map(|export| means.exporters.load(export)).transpose()?;
        Ok(Self {
            access: log.filter(|log| log.of.has_requests()).map(|log| Access::new(log, &means.lines)),
            checks: log.filter(|log| log.of.has_checks()).map(|log| Access::new(log, &means.lines)),
            tracing: config.tracing.clone(),
            spans: exporter.map(|exporter| Spans::new(exporter, log)),
            limits: config.rate_limits.iter().map(limit).collect(),
            authenticator: authenticator
                .map(|settings| Authenticator::new(settings, &means.keyring))
                .transpose()?,
        })
    }

    pub(super) fn access(&self) -> Option<&Access> {
        self.access.as_ref()
    }

    /// Where the checks of backends are written.
    pub(super) fn checks(&self) -> Option<&Access> {
        self.checks.as_ref()
    }

    pub(super) fn spans(&self) -> Option<&Spans> {
        self.spans.as_ref()
    }

    /// Each limit with the requests that it has refused.
    pub(super) fn refused(&self) -> impl Iterator<Item = (&str, u64)> {
        self.limits.iter().map(|limit| (limit.settings.name.as_str(), limit.rate.refused()))
    }

    /// Headers of a client that no backend is to see.
    pub(super) fn removed(&self) -> &[String] {
        self.authenticator.as_ref().map_or(&[], Authenticator::removed)
    }

    /// `own` is what it asks of the listener itself, if that is so.
    pub(super) fn admit(
        &self,
        thread: &Thread,
        request: &RequestHead,
        own: Option<OwnPath>,
        peer: &Peer,
        now: Instant,
    ) -> Result<Admitted, Refusal> {
        if own.is_none() {
            self.limit(request, peer, now)?;
        }
        let lines = match &self.authenticator {
            Some(authenticator) if !own.is_some_and(OwnPath::is_for_anyone) => {
                authenticator.check(request, peer, &mut thread.tokens.borrow_mut())?
            }
            _ => None,
        };
        let begin = |tracing: &Tracing| {
            let one_in = tracing.sample_one_in.get() as usize;
            thread.with_random(|random| Trace::of(&request.fields, one_in, self.spans.is_some(), random))
        };
        Ok(Admitted { trace: self.tracing.as_ref().map(begin), lines })
    }

    fn limit(&self, request: &RequestHead, peer: &Peer, now: Instant) -> Result<(), Refusal> {
        // A request that one limit refuses is not counted by the others: who goes beyond his own takes nothing from all.
        if self.limits.len() > 1 {
            for limit in &self.limits {
                limit.ask(RateLimit::look, request, peer, now)?;
            }
        }
        self.limits.iter().try_for_each(|limit| limit.ask(RateLimit::take, request, peer, now))
    }
}

impl Limit {
    fn new(settings: &config::RateLimit) -> Self {
        let keyed = settings.scope != RateLimitScope::Listener;
        let burst = settings.burst.unwrap_or(settings.requests);
        let rate = RateLimit::new(settings.requests, settings.per.as_std(), burst, keyed, Instant::now());
        Self { settings: Arc::new(settings.clone()), rate: Arc::new(rate) }
    }

    fn ask(
        &self,
        question: fn(&RateLimit, &[u8], Instant) -> Result<(), Exceeded>,
        request: &RequestHead,
        peer: &Peer,
        now: Instant,
    ) -> Result<(), Refusal> {
        let answer = match (self.settings.scope, &self.settings.header) {
            (RateLimitScope::Client, _) => {
                let (address, length) = peer.address.map_or(([0; 16], 0), |address| network(address.ip()));
                question(&self.rate, &address[..length], now)
            }
            (RateLimitScope::Header, Some(name)) => {
                question(&self.rate, request.fields.get(name).unwrap_or_default(), now)
            }
            (RateLimitScope::Listener | RateLimitScope::Header, _) => question(&self.rate, &[], now),
        };
        answer.map_err(|exceeded| Refusal::RateLimited {
            limit: Arc::clone(&self.settings),
            wait: exceeded.wait,
        })
    }
}

/// What counts as one client, and its length: an address, or of IPv6 the network that its owner chooses addresses from.
fn network(ip: IpAddr) -> ([u8; 16], usize) {
    let mut bytes = [0; 16];
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            (bytes, 4)
        }
        IpAddr::V6(ip) => {
            bytes[..8].copy_from_slice(&ip.octets()[..8]);
            (bytes, 8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_an_address_or_a_network_of_ipv6() {
        let same = |a: &str, b: &str| network(a.parse().unwrap()) == network(b.parse().unwrap());
        assert!(same("10.0.0.1", "10.0.0.1") && same("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(!same("10.0.0.1", "10.0.0.2"));
        assert!(same("fd00:0:0:1::1", "fd00:0:0:1:ffff::2") && !same("fd00:0:0:1::1", "fd00:0:0:2::1"));
    }
}
