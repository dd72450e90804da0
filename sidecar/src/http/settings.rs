//! What a listener's requests go by, as far as it may change while the listener is open.

use std::net::IpAddr;

use crds::config::{DownAnswer, HttpListener, SidekickPaths};

use crate::net;

/// A snapshot: a request is served by one of them from beginning to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) down_answer: DownAnswer,
    pub(super) sidekick: SidekickPaths,
    /// Whether backends are told of the client.
    pub(super) forwarded: Option<Forwarded>,
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
        }
    }
}
