//! What a listener's connections go by, as far as it may change while the listener is open.

use std::{sync::Arc, time::Duration};

use crds::config::{OnBackendDown, ProxyVersion, TcpListener};

use super::postgres::Manners;
use crate::{
    l4::Access,
    net::{DeadHosts, tls::Server},
};

/// A snapshot: a connection is served by one of them from beginning to end.
pub(super) struct Settings {
    /// What connections begin with, if they begin with TLS.
    pub(super) tls: Option<Arc<Server>>,
    /// None where nothing is logged.
    pub(super) access: Option<Arc<Access>>,
    pub(super) connect: Duration,
    pub(super) idle: Duration,
    pub(super) dead_hosts: DeadHosts,
    pub(super) tries: u32,
    pub(super) max_queued: usize,
    pub(super) queue_timeout: Duration,
    /// Whether the connections of a backend that fails its checks are closed.
    pub(super) closes_down: bool,
    /// How connections are moved to backends that join, if they are.
    pub(super) rebalance: Option<Rebalance>,
    /// Whether connections begin with the PROXY protocol.
    pub(super) takes_ends: bool,
    /// The version of it that backends are told of the client in.
    pub(super) tells_ends: Option<ProxyVersion>,
    /// What is heeded where clients speak PostgreSQL.
    pub(super) postgres: Option<Manners>,
    /// Backends go by the server name that clients ask for.
    pub(super) by_name: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rebalance {
    pub(super) per_second: u32,
    pub(super) quiet: Duration,
    /// Time in which the share of a backend that joins grows.
    pub(super) slow_start: Duration,
}

impl Settings {
    pub(super) fn new(config: &TcpListener, tls: Option<Arc<Server>>, access: Option<Arc<Access>>) -> Self {
        Self {
            tls,
            access,
            connect: config.timeouts.connect.as_std(),
            idle: config.timeouts.idle.as_std(),
            dead_hosts: DeadHosts {
                after: config.keep_alive.after.as_std(),
                interval: config.keep_alive.interval.as_std(),
                probes: config.keep_alive.probes.get(),
                unacknowledged: config.timeouts.user.map(|limit| limit.as_std()),
            },
            tries: config.connect_tries.get(),
            max_queued: config.backend_limits.max_queued as usize,
            queue_timeout: config.backend_limits.queue_timeout.as_std(),
            closes_down: config.on_backend_down == OnBackendDown::Close,
            rebalance: config.rebalance.map(|rebalance| Rebalance {
                per_second: rebalance.connections_per_second.get(),
                quiet: rebalance.quiet.as_std(),
                slow_start: config.slow_start.map_or(Duration::ZERO, |window| window.as_std()),
            }),
            takes_ends: config.proxy_protocol.accept,
            tells_ends: config.proxy_protocol.send,
            postgres: Manners::of(config),
            by_name: !config.routes.is_empty(),
        }
    }
}
