//! Which backends may take traffic now, in which order, and if none, why. Pure: sets and conditions -> route -> pick.
//!
//! The first site with a live backend takes all traffic. Within it the tiers stand in the order in which they are asked:
//! backends of the own zone, of the others, and those that are terminating.

use std::{fmt::Write as _, sync::Arc};

use super::{
    Backend, BackendSet, Busy, Condition, Endpoint, Rules,
    hash::hash,
    health::Cause,
    method::Method,
    shared::Shared,
    tier::{Choice, Share, Tier},
    zone,
};

/// A snapshot that requests are sent by.
pub struct Route<D> {
    /// All backends of all sites, for counters and connections.
    pub backends: Vec<Arc<Backend<D>>>,
    /// Those that have someone to offer.
    sites: Vec<SiteTiers>,
    /// One line for each site, for the answer when there is no backend.
    pub unavailable: String,
    method: Method,
    hash_header: Option<Arc<str>>,
    by_source: bool,
    /// Requests under way from which on a backend is full.
    max_requests: usize,
    shared: Arc<Shared>,
}

/// What is to be said about one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wish {
    /// [`hash`](super::hash) of the value of [`Route::hash_header`], none without that header; or of the client's address, where
    /// [`Route::hashes_source`].
    pub hash: Option<u64>,
}

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Picked {
    /// Index into [`Route::backends`].
    Backend(usize),
    /// There are backends, and each has as many requests as its limits allow.
    Full,
    None,
}

/// The tiers of one site; none is empty.
struct SiteTiers {
    tiers: Vec<Tier>,
    /// Thousandths of the requests that the first tier keeps; the next one gets the others.
    kept: usize,
}

/// A site as [`Route::plan`] takes it in.
pub(super) struct SiteState<D> {
    pub(super) name: Arc<str>,
    pub(super) set: Arc<BackendSet>,
    /// In the order of the set's endpoints.
    pub(super) members: Vec<Member<D>>,
}

pub(super) struct Member<D> {
    pub(super) backend: Arc<Backend<D>>,
    pub(super) condition: Condition,
    /// What the last check failed with.
    pub(super) failure: Option<String>,
    pub(super) ejected: bool,
    /// The configured weight for now; 0 takes no new requests.
    pub(super) weight: u32,
}

impl<D> Member<D> {
    /// Could take traffic, were it not for ejection.
    fn is_usable(&self) -> bool {
        self.condition.is_usable() && self.weight > 0
    }
}

impl<D> Route<D> {
    pub(super) fn plan(states: &[SiteState<D>], rules: &Rules, shared: &Arc<Shared>) -> Self {
        let mut route = Self {
            method: rules.method,
            hash_header: rules.hash_header.clone(),
            by_source: rules.by_source(),
            max_requests: rules.limits.requests,
            shared: Arc::clone(shared),
            unavailable: String::new(),
            ..Self::empty()
        };
        let (mut ejected, mut panicking) = (None, None);
        for site in states {
            let first = route.backends.len();
            route.backends.extend(site.members.iter().map(|member| Arc::clone(&member.backend)));
            let tier = |wanted: &dyn Fn(&Member<D>, &Endpoint) -> bool| {
                let members = (first..).zip(&site.members).zip(&site.set.endpoints);
                let members = members.filter(|((_, member), endpoint)| wanted(member, endpoint));
                let share = |((backend, member), _): ((usize, &Member<D>), _)| Share {
                    backend,
                    weight: member.weight,
                    identity: hash(member.backend.address.to_string().as_bytes()),
                };
                Tier::new(members.map(share).collect(), rules.method)
            };
            let serving = |member: &Member<D>| member.is_usable() && !member.ejected;
            let zone = zone::split(rules.distribution, &site.members, &site.set.endpoints);
            let tiers = [
                tier(&|member, endpoint| serving(member) && !endpoint.terminating && zone.is_near(endpoint)),
                tier(&|member, endpoint| serving(member) && !endpoint.terminating && !zone.is_near(endpoint)),
                tier(&|member, endpoint| serving(member) && endpoint.terminating),
            ];
            let kept = if tiers[0].is_some() && tiers[1].is_some() { zone.kept } else { zone::ALL };
            let tiers: Vec<_> = tiers.into_iter().flatten().collect();
            if !tiers.is_empty() {
                route.sites.push(SiteTiers { tiers, kept });
            }
            ejected = ejected.or_else(|| tier(&|member, _| member.is_usable() && member.ejected));
            if !site.members.is_empty() {
                let failed = Condition::Down(Cause::Failed);
                panicking = tier(&|member, _| member.condition == failed && member.weight > 0);
            }
            route.explain(site);
        }
        if route.sites.is_empty() {
            // Failed requests alone never make an outage, nor do failed checks in the last site: those may still serve.
            let last_resort = ejected.or_else(|| panicking.filter(|_| rules.panic));
            route.sites.extend(last_resort.map(|tier| SiteTiers { tiers: vec![tier], kept: zone::ALL }));
        }
        route
    }

    fn explain(&mut self, site: &SiteState<D>) {
        let mut reasons: Vec<String> = site
            .set
            .unavailable
            .iter()
            .map(|source| format!("{}: {}", source.what, source.message))
            .collect();
        let all = site.members.len();
        let down = site.members.iter().filter(|member| member.condition.is_down());
        if let Some(failure) = down.clone().find_map(|member| member.failure.as_deref()) {
            let down = down.count();
            reasons.push(match (down, all) {
                (_, 1) => format!("the only backend failed its last check: {failure}"),
                _ if down == all => format!("all {all} backends failed their last check: {failure}"),
                _ => format!("{down} of {all} backends failed their last check: {failure}"),
            });
        }
        let awaited = site.members.iter().filter(|member| member.condition == Condition::Awaited).count();
        if awaited > 0 {
            reasons.push(match all {
                1 => "the only backend was not checked yet".to_owned(),
                _ => format!("{awaited} of {all} backends were not checked yet"),
            });
        }
        let drained = site.members.iter().filter(|member| member.weight == 0).count();
        if drained > 0 {
            reasons.push(format!("{drained} of {all} backends have weight 0, which takes no requests"));
        }
        if reasons.is_empty() && all == 0 {
            reasons.push(
                if site.set.answered { "it has no backends now" } else { "its backends are not known yet" }
                    .to_owned(),
            );
        }
        if !reasons.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(self.unavailable, "site {}: {}", site.name, reasons.join("; "));
        }
    }

    /// A route without backends, until the first one is planned.
    pub fn empty() -> Self {
        Self {
            backends: Vec::new(),
            sites: Vec::new(),
            unavailable: "its backends are not known yet\n".to_owned(),
            method: Method::LeastOfTwo,
            hash_header: None,
            by_source: false,
            max_requests: usize::MAX,
            shared: Arc::default(),
        }
    }

    /// Name of the header, in lower case, whose value is to be hashed; none where requests do not go by a hash.
    pub fn hash_header(&self) -> Option<&str> {
        self.hash_header.as_deref()
    }

    /// Whether the hash to choose by is that of the client's address.
    pub fn hashes_source(&self) -> bool {
        self.by_source
    }

    /// Whether requests go by latencies. If not, [`Backend::observe`] does not look at them.
    pub fn measures(&self) -> bool {
        self.method == Method::PeakEwma
    }

    /// The backend to send to: of the first tier of the first site that has one. A suspect one only when there is nothing
    /// else. A site whose backends are all full is not passed over: the next one is for outages. `random` gives a number
    /// below its argument.
    pub fn pick(
        &self,
        wish: &Wish,
        tried: impl Fn(u64) -> bool,
        mut random: impl FnMut(usize) -> usize,
    ) -> Picked {
        match self.pick_among(wish, &|backend| !backend.is_suspect() && !tried(backend.id), &mut random) {
            Picked::None => self.pick_among(wish, &|backend| !tried(backend.id), &mut random),
            picked => picked,
        }
    }

    fn pick_among(
        &self,
        wish: &Wish,
        wanted: &impl Fn(&Backend<D>) -> bool,
        random: &mut impl FnMut(usize) -> usize,
    ) -> Picked {
        for site in &self.sites {
            let mut tiers = [0, 1, 2];
            if site.kept < zone::ALL && Self::lot(wish, random) >= site.kept {
                tiers.swap(0, 1);
            }
            for tier in tiers.iter().filter_map(|&tier| site.tiers.get(tier)) {
                let picked = tier.pick(&mut Choice {
                    method: self.method,
                    hash: wish.hash,
                    turns: &self.shared.turns,
                    eligible: |index: usize| wanted(&self.backends[index]) && !self.is_full(index),
                    load: |index: usize| self.load(index),
                    random: &mut *random,
                });
                if let Some(index) = picked {
                    return Picked::Backend(index);
                }
            }
            if site.tiers.iter().flat_map(Tier::backends).any(|index| wanted(&self.backends[index])) {
                return Picked::Full;
            }
        }
        Picked::None
    }

    /// Counts one more at a backend; none if another thread has taken the last place since it was picked.
    pub fn occupy(&self, index: usize) -> Option<Busy<D>> {
        let busy = self.backends[index].occupy();
        (busy.backend().outstanding() <= self.max_requests).then_some(busy)
    }

    /// A number below [`zone::ALL`], the same for the same hash.
    fn lot(wish: &Wish, random: &mut impl FnMut(usize) -> usize) -> usize {
        wish.hash.map_or_else(|| random(zone::ALL), |hash| (hash % zone::ALL as u64) as usize)
    }

    fn is_full(&self, index: usize) -> bool {
        self.backends[index].outstanding() >= self.max_requests
    }

    fn load(&self, index: usize) -> u64 {
        let backend = &self.backends[index];
        let outstanding = backend.outstanding() as u64;
        match self.method {
            Method::PeakEwma => backend.latency.micros().saturating_mul(outstanding + 1),
            _ => outstanding,
        }
    }

    /// Whether there is a backend that was not tried and is not full.
    pub fn has_another(&self, tried: impl Fn(u64) -> bool) -> bool {
        let mut backends = self.sites.iter().flat_map(|site| &site.tiers).flat_map(Tier::backends);
        backends.any(|index| !tried(self.backends[index].id) && !self.is_full(index))
    }

    /// Whether what goes on at a backend may go on there: it takes traffic, or is only to get no more of it.
    pub fn keeps(&self, backend: &Backend<D>) -> bool {
        let Some(index) = self.backends.iter().position(|other| other.id == backend.id) else { return false };
        let drained = backend.weight() == 0 && backend.condition().is_usable() && !backend.is_ejected();
        let mut taking = self.sites.iter().flat_map(|site| &site.tiers).flat_map(Tier::backends);
        drained || taking.any(|other| other == index)
    }

    /// The part of what is new that each backend gets by its weight, all together 1. Backends that are to get nothing are left out,
    /// but for those that get something as soon as no other is there.
    pub fn shares(&self) -> impl Iterator<Item = (&Arc<Backend<D>>, f64)> {
        self.sites.first().into_iter().flat_map(|site| {
            let kept = site.kept as f64 / zone::ALL as f64;
            let tiers = site.tiers.iter().zip([kept, 1.0 - kept, 0.0]);
            let shares =
                tiers.flat_map(|(tier, part)| tier.shares().map(move |(index, share)| (index, part * share)));
            shares.map(|(index, share)| (&self.backends[index], share))
        })
    }

    /// Has all backends checked at once, since one of them may be back.
    pub fn check_now(&self) {
        for backend in &self.backends {
            backend.doubt();
        }
    }

    /// Whether some backend may take traffic.
    pub fn is_live(&self) -> bool {
        !self.sites.is_empty()
    }
}

#[cfg(test)]
#[path = "route_tests.rs"]
mod tests;
