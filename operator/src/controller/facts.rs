//! Watched objects, parsed into the little that the plan needs. No client required.
//!
//! Whatever is not kept here is dropped when the event arrives: memory grows with opted-in pods and policies, and not
//! with the cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crds::{
    config::Transport,
    names::{annotations, labels},
    policy::{SidecarPolicy, SidecarPolicyStatus},
};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace, Node, Pod, Service},
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::{DeserializeGuard, PartialObjectMeta};

use super::{
    cache::Key,
    objects::{self, Digest},
};

/// First minor version of Kubernetes 1 whose kubelet runs native sidecars without a feature gate.
const NATIVE_SIDECARS_SINCE: u32 = 29;

/// A policy, also one that this release cannot read.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyFact {
    pub key: Key,
    pub uid: String,
    pub generation: i64,
    /// The policy, or why it cannot be read.
    pub policy: Result<Arc<SidecarPolicy>, String>,
    /// Every Service that the policy names, whether it exists or not.
    pub services: BTreeSet<Key>,
}

impl PolicyFact {
    pub fn parse(object: DeserializeGuard<SidecarPolicy>) -> Option<Self> {
        let key = Key::of(&object);
        let (metadata, policy) = match object.0 {
            Ok(policy) => (policy.metadata.clone(), Ok(Arc::new(policy))),
            Err(invalid) => (invalid.metadata, Err(invalid.error)),
        };
        let services = policy.as_deref().map(|policy| services(policy, &key.namespace)).unwrap_or_default();
        Some(Self {
            key,
            uid: metadata.uid.unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            policy,
            services,
        })
    }

    pub fn status(&self) -> Option<&SidecarPolicyStatus> {
        self.policy.as_ref().ok()?.status.as_ref()
    }
}

fn services(policy: &SidecarPolicy, namespace: &str) -> BTreeSet<Key> {
    let spec = &policy.spec;
    let http = spec.http.iter().flat_map(|listener| &listener.sites).flat_map(|site| &site.backends);
    let tcp = spec.tcp.iter().flat_map(|listener| {
        listener.backends.iter().chain(listener.routes.iter().flat_map(|route| &route.backends))
    });
    let udp = spec.udp.iter().flat_map(|listener| &listener.backends);
    http.chain(tcp)
        .chain(udp)
        .filter_map(|backend| backend.service.as_ref())
        .map(|service| Key::new(service.namespace.as_deref().unwrap_or(namespace), &service.name))
        .collect()
}

/// A Service, as far as its ports and its kind go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceFact {
    /// The host name behind a Service of type ExternalName.
    pub external_name: Option<String>,
    /// Whether its first address family is IPv6.
    pub ipv6: bool,
    pub ports: Vec<PortFact>,
}

/// A port of a Service. Its name, empty or not, is also the name of the port in the EndpointSlices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortFact {
    pub number: u16,
    pub name: String,
    /// None for a port that no listener uses.
    pub transport: Option<Transport>,
}

impl ServiceFact {
    pub fn parse(service: Service) -> Option<Self> {
        let spec = service.spec.unwrap_or_default();
        let external = spec.type_.as_deref() == Some("ExternalName");
        Some(Self {
            external_name: external.then(|| spec.external_name.unwrap_or_default()),
            ipv6: spec.ip_families.unwrap_or_default().first().is_some_and(|family| family == "IPv6"),
            ports: spec
                .ports
                .unwrap_or_default()
                .into_iter()
                .filter_map(|port| {
                    Some(PortFact {
                        number: u16::try_from(port.port).ok()?,
                        name: port.name.unwrap_or_default(),
                        transport: Transport::of(port.protocol.as_deref()),
                    })
                })
                .collect(),
        })
    }
}

/// Which namespaces may use the Services of a namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespaceFact {
    export_to: BTreeSet<String>,
}

impl NamespaceFact {
    pub fn parse(namespace: PartialObjectMeta<Namespace>) -> Option<Self> {
        Some(Self::exporting_to(
            namespace
                .metadata
                .annotations
                .as_ref()
                .and_then(|annotations| annotations.get(annotations::EXPORT_TO))
                .map_or("", String::as_str),
        ))
    }

    /// Reads the value of the annotation: namespaces with commas between, or `*`.
    pub fn exporting_to(value: &str) -> Self {
        let names = value.split(',').map(str::trim).filter(|name| !name.is_empty());
        Self { export_to: names.map(str::to_owned).collect() }
    }

    pub fn exports_to(&self, namespace: &str) -> bool {
        self.export_to.contains("*") || self.export_to.contains(namespace)
    }
}

/// An unfinished pod that opted in or carries a sidecar. The watch leaves finished pods out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PodFact {
    /// Whether `sidecar.io/inject` is `"true"`.
    pub opted_in: bool,
    /// Whether the pod is being deleted: it still uses its policy's objects, and counts no more.
    pub deleting: bool,
    pub labels: BTreeMap<String, String>,
    /// Those of this project alone.
    pub annotations: BTreeMap<String, String>,
}

impl PodFact {
    /// `None` for a pod that has nothing to do with sidecars.
    pub fn parse(pod: PartialObjectMeta<Pod>) -> Option<Self> {
        let ObjectMeta { annotations, labels, deletion_timestamp, .. } = pod.metadata;
        let mut annotations = annotations.unwrap_or_default();
        annotations.retain(|name, _| {
            name.strip_prefix(crds::names::GROUP).is_some_and(|rest| rest.starts_with('/'))
        });
        let fact = Self {
            opted_in: annotations.get(annotations::INJECT).is_some_and(|value| value == "true"),
            deleting: deletion_timestamp.is_some(),
            labels: labels.unwrap_or_default(),
            annotations,
        };
        (fact.opted_in || fact.injected_policy().is_some()).then_some(fact)
    }

    /// The policy that shaped the pod's sidecar.
    pub fn injected_policy(&self) -> Option<&str> {
        self.annotation(annotations::INJECTED_POLICY)
    }

    /// The ServiceAccount that the pod runs as; only the webhook tells, so only for injected pods.
    pub fn service_account(&self) -> Option<&str> {
        self.annotation(annotations::SERVICE_ACCOUNT)
    }

    pub fn shape_hash(&self) -> Option<&str> {
        self.annotation(annotations::SHAPE_HASH)
    }

    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// A node's kubelet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFact {
    pub native_sidecars: bool,
}

impl NodeFact {
    pub fn parse(node: Node) -> Option<Self> {
        let version = node.status?.node_info?.kubelet_version;
        Some(Self { native_sidecars: runs_native_sidecars(&version) })
    }
}

/// Reads `v1.37.0`, `v1.29.3-eks-abc` and the like; a version that cannot be read counts as old.
fn runs_native_sidecars(version: &str) -> bool {
    let mut numbers = version.trim_start_matches('v').split(['.', '-', '+']).map(str::parse::<u32>);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(1)), Some(Ok(minor))) => minor >= NATIVE_SIDECARS_SINCE,
        (Some(Ok(major)), _) => major > 1,
        _ => false,
    }
}

/// An object that the controller applied, found again by its labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnedFact {
    /// The policy that its labels name.
    pub policy: Key,
    pub uid: String,
    /// Of everything that the controller owns in it.
    pub digest: Digest,
}

impl OwnedFact {
    pub fn config_map(object: ConfigMap) -> Option<Self> {
        let digest = objects::config_map_digest(&object);
        Self::new(object.metadata, digest)
    }

    pub fn role(object: Role) -> Option<Self> {
        let digest = objects::role_digest(&object);
        Self::new(object.metadata, digest)
    }

    pub fn role_binding(object: RoleBinding) -> Option<Self> {
        let digest = objects::role_binding_digest(&object);
        Self::new(object.metadata, digest)
    }

    /// An object without our labels is none of ours, whatever it is called.
    fn new(metadata: ObjectMeta, digest: Digest) -> Option<Self> {
        let found = metadata.labels.unwrap_or_default();
        let label = |name: &str| found.get(name).cloned();
        (label(labels::MANAGED_BY)? == labels::MANAGER).then_some(())?;
        Some(Self {
            policy: Key::new(label(labels::POLICY_NAMESPACE)?, label(labels::POLICY)?),
            uid: metadata.uid.unwrap_or_default(),
            digest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kubelets_from_1_29_run_native_sidecars() {
        for (version, native) in [
            ("v1.28.15", false),
            ("v1.29.0", true),
            ("v1.37.0-alpha.1+abc", true),
            ("v1.30.4-gke.100", true),
            ("v1.29-custom", true),
            ("v2.0.0", true),
            ("", false),
            ("master", false),
        ] {
            assert_eq!(runs_native_sidecars(version), native, "{version:?}");
        }
    }

    #[test]
    fn consent_is_a_list_of_namespaces_or_everyone() {
        for (value, consents) in
            [("", false), ("other", false), ("analytics", true), (" a , analytics,", true), ("*", true)]
        {
            assert_eq!(NamespaceFact::exporting_to(value).exports_to("analytics"), consents, "{value:?}");
        }
    }

    #[test]
    fn a_pod_without_our_annotations_is_not_kept_and_foreign_annotations_never_are() {
        let pod = |annotations: &[(&str, &str)]| {
            let annotations =
                annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            PodFact::parse(PartialObjectMeta {
                metadata: ObjectMeta { annotations: Some(annotations), ..ObjectMeta::default() },
                ..PartialObjectMeta::default()
            })
        };
        assert_eq!(pod(&[("other/inject", "true")]), None);
        assert_eq!(pod(&[("sidecar.io/inject", "false")]), None);
        let kept = pod(&[("sidecar.io/inject", "true"), ("other", "long")]).unwrap();
        assert_eq!(kept.annotations.len(), 1);
        assert!(!pod(&[("sidecar.io/injected-policy", "data")]).unwrap().opted_in);
    }
}
