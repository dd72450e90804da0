//! Worlds for the tables of the pure parts.

use std::sync::Arc;

use crds::{config::Transport, policy::SidecarPolicy};
use kube::core::DeserializeGuard;

use super::{
    cache::Key,
    facts::{PodFact, PolicyFact, PortFact, ServiceFact},
    world::World,
};

/// Adds a policy of generation 1 with one listener of one site; `backends` is the line of YAML that gives its backends.
pub(super) fn policy(world: &World, namespace: &str, name: &str, backends: &str) -> Arc<PolicyFact> {
    let text = format!(
        "
apiVersion: sidecar.io/v1alpha1
kind: SidecarPolicy
metadata: {{name: {name}, namespace: {namespace}, generation: 1, uid: u-{name}}}
spec:
  http:
  - name: web
    port: 8000
    sites: [{{name: main, {backends}}}]
"
    );
    let policy: SidecarPolicy = serde_yaml::from_str(&text).unwrap();
    let key = Key::new(namespace, name);
    world.policies.set(key.clone(), PolicyFact::parse(DeserializeGuard(Ok(policy))));
    world.policies.get(&key).unwrap()
}

pub(super) fn service(world: &World, namespace: &str, name: &str, ports: &[(&str, u16)]) {
    let ports = ports
        .iter()
        .map(|(name, number)| PortFact {
            number: *number,
            name: (*name).to_owned(),
            transport: Some(Transport::Tcp),
        })
        .collect();
    let fact = ServiceFact { ports, ..ServiceFact::default() };
    world.services.set(Key::new(namespace, name), Some(fact));
}

/// Adds a pod that opted in, with further annotations.
pub(super) fn pod(world: &World, namespace: &str, name: &str, annotations: &[(&str, &str)]) {
    let fact = PodFact {
        opted_in: true,
        annotations: annotations
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..PodFact::default()
    };
    world.pods.set(Key::new(namespace, name), Some(fact));
}
