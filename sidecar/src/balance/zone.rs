//! Own zone first, as Kubernetes Services do it by `trafficDistribution`. Pure.
//!
//! The zone's backends take all requests while at least 70 % of them can; below that they take the part that 70 % would
//! have of it, and the other zones the rest.

use crds::config::TrafficDistribution;

use super::{Endpoint, route::Member, set::Nearness};

/// Thousandths.
pub(super) const ALL: usize = 1_000;

/// Percent of a zone's backends that suffice for all of its requests: Envoy's overprovisioning factor of 1.4.
const ENOUGH: usize = 70;

/// Who is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Split {
    by: By,
    /// Thousandths of the requests that stay near.
    pub(super) kept: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Nothing,
    Hint,
    Zone,
}

impl Split {
    /// All are, where nobody is preferred.
    pub(super) fn is_near(&self, endpoint: &Endpoint) -> bool {
        match self.by {
            By::Nothing => true,
            By::Hint => endpoint.hinted == Nearness::Here,
            By::Zone => endpoint.zone == Nearness::Here,
        }
    }
}

/// `members` and `endpoints` are of one site, in the same order.
pub(super) fn split<D>(
    distribution: TrafficDistribution,
    members: &[Member<D>],
    endpoints: &[Endpoint],
) -> Split {
    let by = by(distribution, endpoints);
    let whole = Split { by, kept: ALL };
    let near = || {
        let all = members.iter().zip(endpoints);
        all.filter(|(member, endpoint)| whole.is_near(endpoint) && !endpoint.terminating && member.weight > 0)
    };
    let serving = near().filter(|(member, _)| member.condition.is_usable() && !member.ejected).count();
    let kept = (serving * 100 * ALL).checked_div(near().count() * ENOUGH).unwrap_or(0);
    Split { by, kept: kept.min(ALL) }
}

/// Hints are followed as kube-proxy does: only where all endpoints have some, and one of them is for this zone.
fn by(distribution: TrafficDistribution, endpoints: &[Endpoint]) -> By {
    let serving = || endpoints.iter().filter(|endpoint| !endpoint.terminating);
    let hinted = serving().all(|endpoint| endpoint.hinted != Nearness::Unknown)
        && serving().any(|endpoint| endpoint.hinted == Nearness::Here);
    match distribution {
        TrafficDistribution::None => By::Nothing,
        _ if hinted => By::Hint,
        TrafficDistribution::PreferSameZone if serving().any(|endpoint| endpoint.zone == Nearness::Here) => {
            By::Zone
        }
        TrafficDistribution::PreferSameZone | TrafficDistribution::Auto => By::Nothing,
    }
}
