//! API server -> watches -> world. Client required.
//!
//! A watch that fails is tried again with back-off, and the last complete list serves meanwhile. Runs in every replica: the
//! webhook reads policies and platform from here, and a replica that begins to lead has it all.

use std::{fmt::Debug, pin::pin, sync::Arc};

use crds::{names::labels, policy::SidecarPolicy};
use futures::{FutureExt, StreamExt, future::BoxFuture};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Node, Pod, Service},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api, Client, Resource,
    core::{DeserializeGuard, PartialObjectMeta},
    runtime::{
        WatchStreamExt,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::{
    cache::slim,
    facts::{NamespaceFact, NodeFact, OwnedFact, PodFact, PolicyFact, ServiceFact},
    live::UNFINISHED,
    objects::Kind,
    world::World,
};
use crate::watches::Pauses;

/// Nodes are large objects of which one line is read.
const NODES_PER_PAGE: u32 = 100;

/// The watches, each to be run for as long as the process lives.
pub fn watches(client: &Client, world: &Arc<World>) -> Vec<BoxFuture<'static, ()>> {
    let all = watcher::Config::default;
    // A pod that finishes leaves the watch.
    let unfinished = all().fields(UNFINISHED);
    let ours = all().labels(&format!("{}={}", labels::MANAGED_BY, labels::MANAGER));
    let mut watches = vec![
        follow(client, all(), world, |world, event: Event<DeserializeGuard<SidecarPolicy>>| {
            let changes = world.policies.take(event, PolicyFact::parse);
            world.policies_changed(&changes);
        }),
        follow(client, all(), world, |world, event: Event<Service>| {
            let changes = world.services.take(event, ServiceFact::parse);
            world.services_changed(&changes);
        }),
        follow(client, all(), world, |world, event: Event<PartialObjectMeta<Namespace>>| {
            let changes = world.namespaces.take(event, NamespaceFact::parse);
            world.namespaces_changed(&changes);
        }),
        follow(client, unfinished, world, |world, event: Event<PartialObjectMeta<Pod>>| {
            let changes = world.pods.take(event, PodFact::parse);
            world.pods_changed(&changes);
        }),
        follow(client, all().page_size(NODES_PER_PAGE), world, |world, event: Event<Node>| {
            if !world.nodes.take(event, NodeFact::parse).is_empty() {
                world.nodes_changed();
            }
        }),
    ];
    watches.push(follow(client, ours.clone(), world, |world, event: Event<ConfigMap>| {
        let changes = world.owned(Kind::ConfigMap).take(event, OwnedFact::config_map);
        world.owned_changed(&changes);
    }));
    watches.push(follow(client, ours.clone(), world, |world, event: Event<Role>| {
        let changes = world.owned(Kind::Role).take(event, OwnedFact::role);
        world.owned_changed(&changes);
    }));
    watches.push(follow(client, ours, world, |world, event: Event<RoleBinding>| {
        let changes = world.owned(Kind::RoleBinding).take(event, OwnedFact::role_binding);
        world.owned_changed(&changes);
    }));
    watches
}

fn follow<K>(
    client: &Client,
    config: watcher::Config,
    world: &Arc<World>,
    take: impl Fn(&World, Event<K>) + Send + 'static,
) -> BoxFuture<'static, ()>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let (api, world) = (Api::<K>::all(client.clone()), Arc::clone(world));
    async move {
        let mut events = pin!(watcher(api, config).backoff(Pauses::default()));
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => take(&world, slim(event)),
                Err(error) => {
                    warn!(resource = %K::plural(&()), error = &error as &dyn std::error::Error, "watch failed, trying again");
                }
            }
        }
    }
    .boxed()
}
