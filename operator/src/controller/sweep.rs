//! Objects whose policy is gone and whom no pod uses any more, and rights that a namespace has ceased to consent to ->
//! deleted. The choice needs no client.
//!
//! Neither finalizers nor owner references: a policy can always be deleted, and the pods that it was injected into keep
//! configuration and rights for as long as they live.

use std::{collections::HashMap, time::Duration};

use tokio::time::Instant;

use super::{cache::Key, objects::Kind, plan::Stale, world::World};

/// How long an object must have been stale: a pod that was just admitted reaches the watch within the webhook's timeout.
const GRACE: Duration = Duration::from_secs(10);

/// Remembers since when each object is stale.
#[derive(Default)]
pub(super) struct Sweeper {
    since: HashMap<Stale, Instant>,
}

impl Sweeper {
    /// What is to be deleted now, and when to look again.
    pub(super) fn due(&mut self, world: &World, now: Instant) -> (Vec<Stale>, Option<Duration>) {
        let stale = stale(world);
        self.since.retain(|object, _| stale.contains(object));
        let mut due = Vec::new();
        let mut next: Option<Duration> = None;
        for object in stale {
            let age = now.duration_since(*self.since.entry(object.clone()).or_insert(now));
            match GRACE.checked_sub(age).filter(|left| !left.is_zero()) {
                None => due.push(object),
                Some(left) => next = Some(next.map_or(left, |next| next.min(left))),
            }
        }
        (due, next)
    }
}

/// Rights first, so that nothing is left that grants what nobody asked for.
fn stale(world: &World) -> Vec<Stale> {
    Kind::ALL
        .into_iter()
        .rev()
        .flat_map(|kind| world.owned(kind).all().into_iter().map(move |(key, fact)| (kind, key, fact)))
        .filter(|(_, key, fact)| {
            let is_unused = || world.policies.get(&fact.policy).is_none() && !world.is_used(&fact.policy);
            is_withdrawn(world, key, &fact.policy) || is_unused()
        })
        .map(|(kind, key, fact)| Stale { kind, key, uid: fact.uid.clone() })
        .collect()
}

/// Whether an object is in a namespace that does not consent to what it grants, whatever becomes of the policy: one that
/// is gone or cannot be read plans nothing.
pub(super) fn is_withdrawn(world: &World, object: &Key, policy: &Key) -> bool {
    let owner = &object.namespace;
    let consents = || {
        let namespace = world.namespaces.get(&Key::new("", owner));
        namespace.is_some_and(|namespace| namespace.exports_to(&policy.namespace))
    };
    *owner != policy.namespace && !consents()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::{
        facts::{NamespaceFact, OwnedFact},
        testing,
    };

    fn own(world: &World, kind: Kind, namespace: &str, name: &str) {
        let fact =
            OwnedFact { policy: Key::new("a", "data"), uid: "u".to_owned(), digest: Default::default() };
        world.owned(kind).set(Key::new(namespace, name), Some(fact));
    }

    #[tokio::test(start_paused = true)]
    async fn objects_go_once_policy_and_pods_are_gone_for_the_grace() {
        let (world, mut sweeper) = (World::default(), Sweeper::default());
        own(&world, Kind::ConfigMap, "a", "sidecar-data");
        own(&world, Kind::Role, "b", "sidecar.a.data");
        world.namespaces.set(Key::new("", "b"), Some(NamespaceFact::exporting_to("a")));
        testing::policy(&world, "a", "data", "backends: [{addresses: ['10.0.0.1:80']}]");
        let start = Instant::now();
        assert_eq!(sweeper.due(&world, start), (Vec::new(), None), "the policy is there");

        world.policies.set(Key::new("a", "data"), None);
        testing::pod(&world, "a", "pod", &[("sidecar.io/injected-policy", "data")]);
        assert_eq!(sweeper.due(&world, start + 2 * GRACE), (Vec::new(), None), "a pod uses them");

        world.pods.set(Key::new("a", "pod"), None);
        let gone = start + 3 * GRACE;
        assert_eq!(sweeper.due(&world, gone), (Vec::new(), Some(GRACE)));
        let (due, next) = sweeper.due(&world, gone + GRACE);
        let kinds: Vec<Kind> = due.iter().map(|stale| stale.kind).collect();
        assert_eq!((kinds, next), (vec![Kind::Role, Kind::ConfigMap], None));
    }

    #[tokio::test(start_paused = true)]
    async fn a_pod_that_appears_within_the_grace_keeps_them() {
        let (world, mut sweeper) = (World::default(), Sweeper::default());
        own(&world, Kind::ConfigMap, "a", "sidecar-data");
        let start = Instant::now();
        assert_eq!(sweeper.due(&world, start).1, Some(GRACE));
        testing::pod(&world, "a", "pod", &[("sidecar.io/injected-policy", "data")]);
        assert_eq!(sweeper.due(&world, start + GRACE), (Vec::new(), None));
        world.pods.set(Key::new("a", "pod"), None);
        assert_eq!(sweeper.due(&world, start + GRACE), (Vec::new(), Some(GRACE)), "the grace begins anew");
    }

    #[tokio::test(start_paused = true)]
    async fn consent_that_is_withdrawn_ends_rights_that_pods_of_a_deleted_policy_use() {
        let (world, mut sweeper) = (World::default(), Sweeper::default());
        own(&world, Kind::ConfigMap, "a", "sidecar-data");
        for kind in [Kind::Role, Kind::RoleBinding] {
            own(&world, kind, "a", "sidecar-data");
            own(&world, kind, "b", "sidecar.a.data");
        }
        testing::pod(&world, "a", "pod", &[("sidecar.io/injected-policy", "data")]);
        world.namespaces.set(Key::new("", "b"), Some(NamespaceFact::exporting_to("a")));
        let start = Instant::now();
        assert_eq!(sweeper.due(&world, start), (Vec::new(), None));

        world.namespaces.set(Key::new("", "b"), Some(NamespaceFact::exporting_to("z")));
        assert_eq!(sweeper.due(&world, start), (Vec::new(), Some(GRACE)));
        let (due, _) = sweeper.due(&world, start + GRACE);
        let due: Vec<String> = due.iter().map(|stale| format!("{} {}", stale.kind, stale.key)).collect();
        assert_eq!(due, ["RoleBinding b/sidecar.a.data", "Role b/sidecar.a.data"]);
    }
}
