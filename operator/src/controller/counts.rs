//! The pods of a policy: how many, and which ServiceAccounts they run as. Pure; no client required.
//!
//! The choice and the shape come from the same functions as the webhook's. An edit of configuration changes neither, so
//! that it makes no pod outdated.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use crds::{
    names::annotations,
    policy::{PodCounts, SidecarPolicy},
};

use super::{cache::Key, facts::PodFact, world::World};
use crate::inject::{
    Platform, Settings,
    select::{Choice, choose},
    shape,
};

const LONGEST_NAME: usize = 253;

/// What the webhook wrote; everything else of ours on a pod may change its shape.
const WRITTEN: [&str; 5] = [
    annotations::INJECTED_POLICY,
    annotations::INJECTED_GENERATION,
    annotations::SHAPE_HASH,
    annotations::DECISION,
    annotations::SERVICE_ACCOUNT,
];

/// Counts the pods that `policy` is chosen for. Pods that are being deleted are on their way out and count no more.
pub(super) fn count(key: &Key, policy: &SidecarPolicy, world: &World, settings: &Settings) -> PodCounts {
    let policies = world.readable_policies(&key.namespace);
    let platform = **world.platform.load();
    let mut shapes = Shapes { policy, platform, settings, known: HashMap::new() };
    let mut counts = PodCounts::default();
    for pod in world.pods.in_namespace(&key.namespace) {
        if !pod.opted_in || pod.deleting || !is_chosen(&policies, key, &pod) {
            continue;
        }
        counts.matched += 1;
        match pod.injected_policy() {
            None => counts.missed += 1,
            Some(name) if name == key.name && shapes.is_current(&pod) => counts.current += 1,
            Some(_) => counts.outdated += 1,
        }
    }
    counts
}

/// The ServiceAccounts of the pods that `policy` was injected into. An annotation that is no name is left out, or one pod
/// could keep all the others from their rights.
pub(super) fn service_accounts(policy: &Key, world: &World) -> BTreeSet<String> {
    world
        .pods
        .in_namespace(&policy.namespace)
        .iter()
        .filter(|pod| pod.injected_policy() == Some(&policy.name))
        .filter_map(|pod| pod.service_account())
        .filter(|name| is_object_name(name))
        .map(str::to_owned)
        .collect()
}

fn is_chosen(policies: &[Arc<SidecarPolicy>], key: &Key, pod: &PodFact) -> bool {
    match choose(policies, &key.namespace, &pod.labels, &pod.annotations) {
        Choice::Chosen(policy) => policy.metadata.name.as_deref() == Some(&key.name),
        Choice::Missing { .. } | Choice::None { .. } => false,
    }
}

fn is_object_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let part = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|byte| plain(byte) || byte == b'-')
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    name.len() <= LONGEST_NAME && name.split('.').all(part)
}

/// The shapes that a policy gives now, each made once for all pods with the same annotations.
struct Shapes<'a> {
    policy: &'a SidecarPolicy,
    platform: Platform,
    settings: &'a Settings,
    known: HashMap<BTreeMap<String, String>, Option<String>>,
}

impl Shapes<'_> {
    fn is_current(&mut self, pod: &PodFact) -> bool {
        let mut chosen = pod.annotations.clone();
        chosen.retain(|name, _| !WRITTEN.contains(&name.as_str()));
        let now = match self.known.get(&chosen) {
            Some(hash) => hash.as_deref(),
            None => {
                let hash = shape::hash(self.policy, &chosen, self.platform, self.settings).ok();
                self.known.entry(chosen).or_insert(hash).as_deref()
            }
        };
        now.is_some() && now == pod.shape_hash()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;

    #[test]
    fn pods_are_current_outdated_or_missed_by_their_shape_alone() {
        let world = World::default();
        let fact = testing::policy(&world, "ns", "data", "backends: [{addresses: ['10.0.0.1:80']}]");
        let policy = fact.policy.as_ref().unwrap();
        let settings = Settings {
            sidecar_image: "sidecar:1".to_owned(),
            operator_namespace: "sidecar-system".to_owned(),
        };
        let hash =
            shape::hash(policy, &BTreeMap::new(), Platform { native_sidecars: true }, &settings).unwrap();
        testing::pod(&world, "ns", "bare", &[]);
        testing::pod(
            &world,
            "ns",
            "old",
            &[("sidecar.io/injected-policy", "data"), ("sidecar.io/shape-hash", "0")],
        );
        testing::pod(
            &world,
            "ns",
            "now",
            &[("sidecar.io/injected-policy", "data"), ("sidecar.io/shape-hash", &hash)],
        );
        testing::pod(&world, "ns", "else", &[("sidecar.io/policy", "other")]);
        testing::pod(&world, "other", "bare", &[]);

        let counts = count(&fact.key, policy, &world, &settings);
        assert_eq!(counts, PodCounts { matched: 3, current: 1, outdated: 1, missed: 1 });

        let edited = testing::policy(&world, "ns", "data", "backends: [{addresses: ['10.0.0.2:80']}]");
        assert_eq!(count(&fact.key, edited.policy.as_ref().unwrap(), &world, &settings), counts);
    }

    #[test]
    fn rights_go_to_the_service_accounts_of_injected_pods() {
        let world = World::default();
        let injected = ("sidecar.io/injected-policy", "data");
        testing::pod(&world, "ns", "a", &[injected, ("sidecar.io/service-account", "default")]);
        testing::pod(&world, "ns", "b", &[injected, ("sidecar.io/service-account", "default")]);
        testing::pod(&world, "ns", "c", &[injected, ("sidecar.io/service-account", "Not A Name")]);
        testing::pod(&world, "ns", "d", &[("sidecar.io/service-account", "bare")]);
        let found = service_accounts(&Key::new("ns", "data"), &world);
        assert_eq!(found, ["default".to_owned()].into());
    }
}
