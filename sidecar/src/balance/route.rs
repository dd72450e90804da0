//! Which backends may take traffic now, in which order, and if none, why. Pure: sets and conditions -> route -> pick.

use std::{fmt::Write as _, sync::Arc};

use super::{Backend, BackendSet, Condition, health::Cause, pick::pick};

/// A snapshot that requests are sent by.
pub struct Route<D> {
    /// All backends of all sites, for counters and connections.
    pub backends: Vec<Arc<Backend<D>>>,
    /// Indices into `backends`; none is empty. A tier takes traffic only when those before it have nothing to offer.
    tiers: Vec<Vec<usize>>,
    /// One line for each site, for the answer when there is no backend.
    pub unavailable: String,
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
    pub(super) terminating: bool,
}

impl<D> Route<D> {
    pub(super) fn plan(sites: &[SiteState<D>]) -> Self {
        let mut route = Self { backends: Vec::new(), tiers: Vec::new(), unavailable: String::new() };
        let mut panicking = Vec::new();
        for site in sites {
            let first = route.backends.len();
            route.backends.extend(site.members.iter().map(|member| Arc::clone(&member.backend)));
            let tier = |wanted: &dyn Fn(&Member<D>) -> bool| -> Vec<usize> {
                (first..)
                    .zip(&site.members)
                    .filter(|(_, member)| wanted(member))
                    .map(|(index, _)| index)
                    .collect()
            };
            route.tiers.push(tier(&|member| member.condition.is_usable() && !member.terminating));
            route.tiers.push(tier(&|member| member.condition.is_usable() && member.terminating));
            if !site.members.is_empty() {
                panicking = tier(&|member| member.condition == Condition::Down(Cause::Failed));
            }
            route.explain(site);
        }
        route.tiers.retain(|tier| !tier.is_empty());
        // Checks alone never take the last site away: what they failed may still serve.
        if route.tiers.is_empty() && !panicking.is_empty() {
            route.tiers.push(panicking);
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
        let down = site.members.iter().filter(|member| !member.condition.is_usable());
        if let Some(failure) = down.clone().find_map(|member| member.failure.as_deref()) {
            let (down, all) = (down.count(), site.members.len());
            reasons.push(match (down, all) {
                (_, 1) => format!("the only backend failed its last check: {failure}"),
                _ if down == all => format!("all {all} backends failed their last check: {failure}"),
                _ => format!("{down} of {all} backends failed their last check: {failure}"),
            });
        }
        if reasons.is_empty() && site.members.is_empty() {
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
            tiers: Vec::new(),
            unavailable: "its backends are not known yet\n".to_owned(),
        }
    }

    /// The index of a backend to send to: of the first tier that has one, by least requests. A suspect one only when
    /// there is nothing else.
    pub fn pick(&self, tried: impl Fn(u64) -> bool, mut random: impl FnMut(usize) -> usize) -> Option<usize> {
        let mut among = |suspects: bool| {
            self.tiers.iter().find_map(|tier| {
                let backend = |position: usize| &self.backends[tier[position]];
                let eligible = |position: usize| {
                    (suspects || !backend(position).is_suspect()) && !tried(backend(position).id)
                };
                pick(tier.len(), eligible, |position| backend(position).outstanding(), &mut random)
                    .map(|position| tier[position])
            })
        };
        among(false).or_else(|| among(true))
    }

    /// Whether there is a backend that was not tried.
    pub fn has_another(&self, tried: impl Fn(u64) -> bool) -> bool {
        self.tiers.iter().flatten().any(|&index| !tried(self.backends[index].id))
    }

    /// Has all backends checked at once, since one of them may be back.
    pub fn check_now(&self) {
        for backend in &self.backends {
            backend.doubt();
        }
    }

    /// Whether some backend may take traffic.
    pub fn is_live(&self) -> bool {
        !self.tiers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::{Endpoint, Unavailable};

    const UP: Condition = Condition::Up;
    const FAILED: Condition = Condition::Down(Cause::Failed);
    const REFUSED: Condition = Condition::Down(Cause::Refused);

    fn site(name: &str, members: &[(Condition, bool)]) -> SiteState<()> {
        let members: Vec<_> = members
            .iter()
            .zip(1u16..)
            .map(|(&(condition, terminating), port)| Member {
                backend: Arc::new(Backend::new(name.into(), ([127, 0, 0, 1], port).into())),
                condition,
                failure: (!condition.is_usable()).then(|| "connection refused".to_owned()),
                terminating,
            })
            .collect();
        let endpoints = members
            .iter()
            .map(|member| Endpoint {
                terminating: member.terminating,
                ..Endpoint::at(member.backend.address.clone())
            })
            .collect();
        let set = BackendSet { endpoints, unavailable: Vec::new(), answered: true };
        SiteState { name: name.into(), set: Arc::new(set), members }
    }

    /// Condition of each backend of a site, and whether it is terminating.
    type Members<'a> = &'a [(Condition, bool)];

    /// The site and port that each of 100 requests goes to.
    fn targets(route: &Route<()>) -> Vec<String> {
        let mut random = fastrand::Rng::with_seed(1);
        let mut targets: Vec<_> = (0..100)
            .filter_map(|_| route.pick(|_| false, |below| random.usize(..below)))
            .map(|index| &route.backends[index])
            .map(|backend| format!("{}{}", backend.site, backend.address.ip().unwrap().port()))
            .collect();
        targets.sort();
        targets.dedup();
        targets
    }

    #[test]
    fn the_first_site_with_a_live_backend_takes_all_traffic() {
        let b = || site("b", &[(UP, false)]);
        let table: [(Members<'_>, &[&str]); 6] = [
            (&[(UP, false), (UP, false)], &["a1", "a2"]),
            (&[(Condition::Unknown, false), (FAILED, false)], &["a1"]),
            (&[(UP, false), (UP, true)], &["a1"]),
            (&[(FAILED, false), (UP, true)], &["a2"]),
            (&[(FAILED, false), (REFUSED, true)], &["b1"]),
            (&[], &["b1"]),
        ];
        for (a, expected) in table {
            assert_eq!(targets(&Route::plan(&[site("a", a), b()])), expected, "{a:?}");
        }
    }

    #[test]
    fn checks_alone_never_take_the_last_site_away() {
        let table: [(Members<'_>, Members<'_>, &[&str]); 4] = [
            (&[(FAILED, false)], &[(FAILED, false), (FAILED, false)], &["b1", "b2"]),
            (&[(FAILED, false)], &[(FAILED, false), (REFUSED, false)], &["b1"]),
            (&[(FAILED, false)], &[(REFUSED, false)], &[]),
            (&[(FAILED, false)], &[], &["a1"]),
        ];
        for (a, b, expected) in table {
            assert_eq!(targets(&Route::plan(&[site("a", a), site("b", b)])), expected, "{a:?} {b:?}");
        }
    }

    #[test]
    fn a_suspect_is_used_only_when_there_is_nothing_else() {
        let route = Route::plan(&[site("a", &[(UP, false), (UP, false)]), site("b", &[(UP, false)])]);
        route.backends[0].suspect();
        assert_eq!(targets(&route), ["a2"]);
        route.backends[1].suspect();
        assert_eq!(targets(&route), ["b1"]);
        route.backends[2].suspect();
        assert_eq!(targets(&route), ["a1", "a2"]);
    }

    #[test]
    fn the_reason_names_each_site_and_what_it_lacks() {
        let mut missing = site("primary", &[]);
        missing.set = Arc::new(BackendSet {
            endpoints: Vec::new(),
            unavailable: vec![Unavailable {
                what: "Service storage/minio".into(),
                message: "does not exist".into(),
            }],
            answered: true,
        });
        let route = Route::plan(&[
            missing,
            site("recovery", &[(REFUSED, false), (REFUSED, false)]),
            site("last", &[]),
        ]);
        assert_eq!(
            route.unavailable,
            "site primary: Service storage/minio: does not exist\n\
             site recovery: all 2 backends failed their last check: connection refused\n\
             site last: it has no backends now\n"
        );
    }

    proptest! {
        #[test]
        fn what_was_tried_is_never_picked_again(
            conditions in prop::collection::vec((0u8..4, any::<bool>()), 1..8), tries in 1usize..10,
        ) {
            let members: Vec<_> = conditions.iter().map(|&(code, terminating)| (Condition::from_code(code), terminating)).collect();
            let route = Route::plan(&[site("a", &members)]);
            let mut tried = Vec::new();
            let mut random = fastrand::Rng::with_seed(3);
            for _ in 0..tries {
                let another = route.has_another(|id| tried.contains(&id));
                let picked = route.pick(|id| tried.contains(&id), |below| random.usize(..below));
                prop_assert_eq!(picked.is_some(), another);
                let Some(index) = picked else { break };
                prop_assert!(!tried.contains(&route.backends[index].id));
                tried.push(route.backends[index].id);
            }
        }
    }
}
