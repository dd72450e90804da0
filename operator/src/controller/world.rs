//! Everything that was observed, and whom a change concerns. No client required.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use crds::policy::SidecarPolicy;
use tokio::sync::Notify;

use super::{
    cache::{Cache, Change, Key},
    facts::{NamespaceFact, NodeFact, OwnedFact, PodFact, PolicyFact, ServiceFact},
    objects::Kind,
};
use crate::inject::Platform;

/// What the watches saw. The plan reads it, only the watches write it.
pub struct World {
    pub policies: Cache<PolicyFact>,
    pub services: Cache<ServiceFact>,
    pub namespaces: Cache<NamespaceFact>,
    pub pods: Cache<PodFact>,
    pub nodes: Cache<NodeFact>,
    config_maps: Cache<OwnedFact>,
    roles: Cache<OwnedFact>,
    role_bindings: Cache<OwnedFact>,
    /// Made from the nodes; shared with the webhook.
    pub platform: Arc<ArcSwap<Platform>>,
    /// Policies that a change concerns, until the controller takes them.
    pub work: Work,
}

impl Default for World {
    fn default() -> Self {
        Self {
            policies: Cache::default(),
            services: Cache::default(),
            namespaces: Cache::default(),
            pods: Cache::default(),
            nodes: Cache::default(),
            config_maps: Cache::default(),
            roles: Cache::default(),
            role_bindings: Cache::default(),
            platform: Arc::new(ArcSwap::from_pointee(Platform { native_sidecars: true })),
            work: Work::default(),
        }
    }
}

impl World {
    pub fn owned(&self, kind: Kind) -> &Cache<OwnedFact> {
        match kind {
            Kind::ConfigMap => &self.config_maps,
            Kind::Role => &self.roles,
            Kind::RoleBinding => &self.role_bindings,
        }
    }

    /// Returns once every watch has delivered a first complete list.
    pub async fn synced(&self) {
        self.policies.synced().await;
        self.services.synced().await;
        self.namespaces.synced().await;
        self.pods.synced().await;
        self.nodes.synced().await;
        for kind in Kind::ALL {
            self.owned(kind).synced().await;
        }
    }

    pub fn is_synced(&self) -> bool {
        self.policies.is_synced()
            && self.services.is_synced()
            && self.namespaces.is_synced()
            && self.pods.is_synced()
            && self.nodes.is_synced()
            && Kind::ALL.into_iter().all(|kind| self.owned(kind).is_synced())
    }

    /// The policies of a namespace that this release can read.
    pub fn readable_policies(&self, namespace: &str) -> Vec<Arc<SidecarPolicy>> {
        let facts = self.policies.in_namespace(namespace);
        facts.iter().filter_map(|fact| fact.policy.as_ref().ok().map(Arc::clone)).collect()
    }

    /// The names of those that it cannot read, in order.
    pub fn unreadable_policies(&self, namespace: &str) -> Vec<String> {
        let facts = self.policies.in_namespace(namespace);
        let mut names: Vec<String> =
            facts.iter().filter(|fact| fact.policy.is_err()).map(|fact| fact.key.name.clone()).collect();
        names.sort();
        names
    }

    /// Whether a pod that was injected by this policy is left, finished pods aside.
    pub fn is_used(&self, policy: &Key) -> bool {
        let pods = self.pods.in_namespace(&policy.namespace);
        pods.iter().any(|pod| pod.injected_policy() == Some(&policy.name))
    }

    /// A change of one policy can change the choice for every pod of its namespace.
    pub fn policies_changed(&self, changes: &[Change<PolicyFact>]) {
        for change in changes {
            self.work.add([change.key.clone()]);
            self.work.add(self.policies_in(&change.key.namespace));
        }
        self.work.sweep(changes.iter().any(|change| change.after.is_none()));
    }

    pub fn services_changed(&self, changes: &[Change<ServiceFact>]) {
        for change in changes {
            self.work.add(self.policies_where(|policy| policy.services.contains(&change.key)));
        }
    }

    pub fn namespaces_changed(&self, changes: &[Change<NamespaceFact>]) {
        for change in changes {
            let name = &change.key.name;
            self.work.add(
                self.policies_where(|policy| {
                    policy.services.iter().any(|service| service.namespace == *name)
                }),
            );
        }
        self.work.sweep(!changes.is_empty());
    }

    pub fn pods_changed(&self, changes: &[Change<PodFact>]) {
        let namespaces: HashSet<&str> = changes.iter().map(|change| change.key.namespace.as_str()).collect();
        for namespace in namespaces {
            self.work.add(self.policies_in(namespace));
        }
        self.work.sweep(changes.iter().any(|change| change.after.is_none()));
    }

    /// Only the oldest kubelet matters: pods are shaped alike wherever they may be scheduled.
    pub fn nodes_changed(&self) {
        let native_sidecars = self.nodes.all().iter().all(|(_, node)| node.native_sidecars);
        let platform = Platform { native_sidecars };
        if **self.platform.load() != platform {
            self.platform.store(Arc::new(platform));
            self.work.add(self.policies_where(|_| true));
        }
    }

    pub fn owned_changed(&self, changes: &[Change<OwnedFact>]) {
        for change in changes {
            let facts = [&change.before, &change.after];
            self.work.add(facts.into_iter().flatten().map(|fact| fact.policy.clone()));
        }
        self.work.sweep(!changes.is_empty());
    }

    /// Everything anew, for a controller that begins to lead.
    pub fn everything_changed(&self) {
        self.work.add(self.policies_where(|_| true));
        self.work.sweep(true);
    }

    fn policies_in(&self, namespace: &str) -> Vec<Key> {
        self.policies.in_namespace(namespace).iter().map(|policy| policy.key.clone()).collect()
    }

    fn policies_where(&self, concerned: impl Fn(&PolicyFact) -> bool) -> Vec<Key> {
        self.policies.all().into_iter().filter(|(_, policy)| concerned(policy)).map(|(key, _)| key).collect()
    }
}

/// What is to be looked at again. A set, so that a burst of changes costs no more than one.
#[derive(Default)]
pub struct Work {
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Debug, Default, PartialEq)]
pub struct Pending {
    pub policies: BTreeSet<Key>,
    pub sweep: bool,
}

impl Work {
    fn add(&self, policies: impl IntoIterator<Item = Key>) {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).policies.extend(policies);
        self.changed.notify_one();
    }

    fn sweep(&self, needed: bool) {
        if needed {
            self.pending.lock().unwrap_or_else(PoisonError::into_inner).sweep = true;
            self.changed.notify_one();
        }
    }

    /// Takes what is pending, and waits for it where there is nothing.
    pub async fn take(&self) -> Pending {
        loop {
            let pending = self.take_now();
            if pending != Pending::default() {
                return pending;
            }
            self.changed.notified().await;
        }
    }

    /// Takes what is pending, also where that is nothing.
    pub fn take_now(&self) -> Pending {
        std::mem::take(&mut *self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;

    fn concerned(world: &World) -> Vec<String> {
        world.work.take_now().policies.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn each_change_reaches_the_policies_it_concerns_and_no_others() {
        let world = World::default();
        testing::policy(&world, "a", "one", "backends: [{service: {name: web, port: 80}}]");
        testing::policy(&world, "a", "two", "backends: [{addresses: ['10.0.0.1:80']}]");
        testing::policy(&world, "b", "three", "backends: [{service: {name: web, namespace: a, port: 80}}]");

        let change = world.services.set(Key::new("a", "web"), Some(ServiceFact::default()));
        world.services_changed(&Vec::from_iter(change));
        assert_eq!(concerned(&world), ["a/one", "b/three"]);

        let change = world.namespaces.set(Key::new("", "a"), Some(NamespaceFact::exporting_to("b")));
        world.namespaces_changed(&Vec::from_iter(change));
        let pending = world.work.take_now();
        assert_eq!(Vec::from_iter(&pending.policies), [&Key::new("a", "one"), &Key::new("b", "three")]);
        assert!(pending.sweep, "consent may have been withdrawn");

        let pod = PodFact { opted_in: true, ..PodFact::default() };
        let change = world.pods.set(Key::new("a", "pod"), Some(pod));
        world.pods_changed(&Vec::from_iter(change));
        assert_eq!(concerned(&world), ["a/one", "a/two"]);

        world.nodes.set(Key::new("", "node"), Some(NodeFact { native_sidecars: false }));
        world.nodes_changed();
        assert_eq!(concerned(&world).len(), 3);
        assert!(!world.platform.load().native_sidecars);
        world.nodes_changed();
        assert!(concerned(&world).is_empty());
    }
}
