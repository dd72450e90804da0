//! What a listener's requests go by, as far as it may change while the listener is open.

use std::{net::IpAddr, time::Duration};

use crds::{
    config::{self, DownAnswer, HttpListener, SidekickPaths},
    units::ByteSize,
};

use crate::net;

/// A snapshot: a request is served by one of them from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) down_answer: DownAnswer,
    pub(super) sidekick: SidekickPaths,
    /// Whether backends are told of the client.
    pub(super) forwarded: Option<Forwarded>,
    pub(super) timeouts: Timeouts,
    /// Bytes of a request's body, at most.
    pub(super) max_body: u64,
}

/// See [`config::Timeouts`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timeouts {
    pub(super) connect: Duration,
    pub(super) first_byte: Duration,
    pub(super) idle: Duration,
    pub(super) total: Option<Duration>,
    pub(super) keep_alive: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// How others know this machine or pod; `None` if it has no network but loopback.
    pub(super) own: Option<IpAddr>,
}

impl From<&HttpListener> for Settings {
    fn from(config: &HttpListener) -> Self {
        Self {
            down_answer: config.down_answer,
            sidekick: config.sidekick,
            forwarded: config.forwarded_headers.then(|| Forwarded { own: net::own_address() }),
            timeouts: (&config.timeouts).into(),
            max_body: config.max_body_size.as_ref().map_or(u64::MAX, ByteSize::bytes),
        }
    }
}

impl From<&config::Timeouts> for Timeouts {
    fn from(config: &config::Timeouts) -> Self {
        Self {
            connect: config.connect.as_std(),
            first_byte: config.first_byte.as_std(),
            idle: config.idle.as_std(),
            total: config.total.map(|total| total.as_std()),
            keep_alive: config.keep_alive.as_std(),
        }
    }
}
