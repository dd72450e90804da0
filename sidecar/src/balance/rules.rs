//! How a listener balances: its configuration, ready for use.

use std::{sync::Arc, time::Duration};

use crds::config::{
    HttpListener, L4Balance, OutlierDetection, TcpListener, TrafficDistribution, UdpListener,
};

use super::{
    Condition,
    check::{Means, Schedule},
    ejection::Ejection,
    method::Method,
};
use crate::net::{proxy_protocol, tls::Client};

/// Everything that decides who gets a request, but for the backends themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub(super) method: Method,
    /// The header whose value is hashed, in lower case.
    pub(super) hash_header: Option<Arc<str>>,
    /// Zero for none.
    pub(super) slow_start: Duration,
    pub(super) distribution: TrafficDistribution,
    pub(super) ejection: Ejection,
    pub(super) limits: Limits,
    pub(super) panic: bool,
    /// What a backend is until its first check.
    pub(super) initial: Condition,
    /// Checks of the sites but the last, and of the last; none where nothing is checked.
    schedules: Option<[Arc<Schedule>; 2]>,
}

/// Most of each that one backend gets; `usize::MAX` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) requests: usize,
    pub(super) connections: usize,
    pub(super) pending: usize,
}

impl Rules {
    /// How the backends of a site are checked, if they are.
    pub(super) fn schedule(&self, last_site: bool) -> Option<&Arc<Schedule>> {
        self.schedules.as_ref().map(|schedules| &schedules[usize::from(last_site)])
    }

    /// Whether the choice goes by the client's address.
    pub(super) fn by_source(&self) -> bool {
        self.method == Method::Hash && self.hash_header.is_none()
    }

    /// Whether the choice goes by latencies.
    pub(super) fn measures(&self) -> bool {
        self.method == Method::PeakEwma
    }
}

impl From<&HttpListener> for Rules {
    fn from(listener: &HttpListener) -> Self {
        let limits = &listener.backend_limits;
        Self {
            method: listener.balance.into(),
            hash_header: listener.hash_header.as_ref().map(|name| name.to_ascii_lowercase().into()),
            slow_start: listener.slow_start.map_or(Duration::ZERO, |window| window.as_std()),
            distribution: listener.traffic_distribution,
            ejection: (&listener.outlier_detection).into(),
            limits: Limits {
                requests: limit(limits.max_requests),
                connections: limit(limits.max_connections),
                pending: limit(limits.max_pending),
            },
            panic: listener.health.panic,
            initial: listener.health.initial.into(),
            schedules: Some([false, true].map(|last| Arc::new(Schedule::new(&listener.health, last)))),
        }
    }
}

impl Rules {
    /// A connection counts as a request under way. `tls`: checks go within it instead of what connections go in.
    pub fn of_tcp(listener: &TcpListener, tls: Option<Arc<Client>>) -> Self {
        let preface = listener.proxy_protocol.send.map(|version| proxy_protocol::write(version, None));
        let means = Means { tls, preface: preface.unwrap_or_default() };
        let check = &listener.health;
        let schedule = Arc::new(Schedule::of_server(check, means));
        Self {
            slow_start: listener.slow_start.map_or(Duration::ZERO, |window| window.as_std()),
            ejection: (&listener.outlier_detection).into(),
            limits: Limits { requests: limit(listener.backend_limits.max_connections), ..Limits::NONE },
            panic: check.panic,
            // What goes to a server in the wrong role goes wrong: nothing goes before it is known.
            initial: if schedule.asks_for_role() { Condition::Awaited } else { Condition::Unknown },
            schedules: Some([Arc::clone(&schedule), schedule]),
            ..Self::of_l4(listener.balance, listener.traffic_distribution)
        }
    }

    /// A session counts as a request under way. Who refuses goes for a while, as it does elsewhere by default: nothing else may
    /// tell who is there. `tls` is that of the checks.
    pub fn of_udp(listener: &UdpListener, tls: Option<Arc<Client>>) -> Self {
        let means = Means { tls, preface: Vec::new() };
        let schedule = listener.health.as_ref().map(|check| Arc::new(Schedule::of_server(check, means)));
        Self {
            ejection: (&OutlierDetection::default()).into(),
            panic: listener.health.as_ref().is_none_or(|check| check.panic),
            schedules: schedule.map(|schedule| [Arc::clone(&schedule), schedule]),
            ..Self::of_l4(listener.balance, listener.traffic_distribution)
        }
    }

    fn of_l4(balance: L4Balance, distribution: TrafficDistribution) -> Self {
        Self {
            method: balance.into(),
            hash_header: None,
            slow_start: Duration::ZERO,
            distribution,
            ejection: Ejection::NONE,
            limits: Limits::NONE,
            panic: true,
            initial: Condition::Unknown,
            schedules: None,
        }
    }
}

impl Limits {
    const NONE: Self = Self { requests: usize::MAX, connections: usize::MAX, pending: usize::MAX };
}

fn limit(limit: Option<u32>) -> usize {
    limit.map_or(usize::MAX, |limit| limit.max(1) as usize)
}
