//! How a listener balances: its configuration, ready for use.

use std::{sync::Arc, time::Duration};

use crds::config::{Balance, HttpListener, TrafficDistribution};

use super::{Condition, check::Schedule, ejection::Ejection};

/// Everything that decides who gets a request, but for the backends themselves.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    pub(super) balance: Balance,
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
    /// Checks of the sites but the last, and of the last.
    schedules: [Arc<Schedule>; 2],
}

/// Most of each that one backend gets; `usize::MAX` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) requests: usize,
    pub(super) connections: usize,
    pub(super) pending: usize,
}

impl Rules {
    /// How the backends of a site are checked.
    pub(super) fn schedule(&self, last_site: bool) -> &Arc<Schedule> {
        &self.schedules[usize::from(last_site)]
    }

    /// Whether the choice goes by latencies.
    pub(super) fn measures(&self) -> bool {
        self.balance == Balance::PeakEwma
    }
}

impl From<&HttpListener> for Rules {
    fn from(listener: &HttpListener) -> Self {
        let limit = |limit: Option<u32>| limit.map_or(usize::MAX, |limit| limit.max(1) as usize);
        let limits = &listener.backend_limits;
        Self {
            balance: listener.balance,
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
            schedules: [false, true].map(|last| Arc::new(Schedule::new(&listener.health, last))),
        }
    }
}
