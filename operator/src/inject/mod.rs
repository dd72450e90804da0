//! opt-in -> choose a policy -> parse the pod's overrides -> build the shape -> look for clashes -> patch.
//!
//! Pure: the webhook, `operator inject` and the controller's counts come from the same code. The pod is raw JSON and the
//! patch only adds, so that no field of the user's can be lost, whether this release knows it or not. Injecting twice is
//! injecting once: what a former pass recorded is kept, and only what has gone since is added.

mod clash;
mod error;
mod overrides;
mod patch;
mod pod;
mod resources;
pub mod select;
pub mod shape;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use crds::{names::annotations, policy::SidecarPolicy};
pub use error::InjectError;
use kube::ResourceExt;
pub use patch::PatchOperation;
use pod::Pod;
use select::Choice;
use serde_json::Value;
use shape::{Placement, Shape};

/// Tells kubectl which container `exec` and `logs` mean.
const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";
/// Cluster components start before any webhook can answer.
const SYSTEM_NAMESPACE: &str = "kube-system";

/// What the operator was started with, as far as pods are shaped by it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Image of the sidecar where the policy names none.
    pub sidecar_image: String,
    /// Pods of this namespace are never injected, or the operator could not start without itself.
    pub operator_namespace: String,
}

/// What the cluster can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Platform {
    /// Whether every kubelet runs native sidecars (1.29 or newer).
    pub native_sidecars: bool,
}

/// A pod that is being created.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    pub pod: &'a Value,
    /// Namespace of the request: the pod itself often names none at admission.
    pub namespace: &'a str,
}

/// What is done with a pod, and why.
#[derive(Debug, Clone, PartialEq)]
pub enum Decision {
    /// The pod gets the sidecar. An empty patch means that it has it already.
    Inject { policy: String, generation: i64, patch: Vec<PatchOperation>, warnings: Vec<String> },
    /// The pod stays as it is.
    Skip { reason: String, warnings: Vec<String> },
    /// The pod opted in and cannot get the sidecar: it is refused, since it must not start bare.
    Deny { error: InjectError },
}

/// Decides about one pod.
pub fn inject(
    request: &Request<'_>,
    policies: &[Arc<SidecarPolicy>],
    platform: Platform,
    settings: &Settings,
) -> Decision {
    let pod = Pod::new(request.pod);
    let Some(value) = pod.annotation(annotations::INJECT) else {
        return skip(format!("not annotated {}", annotations::INJECT));
    };
    if value == "false" {
        return skip(format!("annotated {}: \"false\"", annotations::INJECT));
    }
    if let Some(reason) = excluded(&pod, request.namespace, settings) {
        let warnings = vec![format!("{} has no effect: {reason}", annotations::INJECT)];
        return Decision::Skip { reason, warnings };
    }
    let outcome = match value.as_str() {
        Some("true") => opted_in(&pod, request.namespace, policies, platform, settings),
        Some(value) => Err(InjectError::OptIn { value: value.to_owned() }),
        None => Err(InjectError::NotText { annotation: annotations::INJECT.to_owned() }),
    };
    outcome.unwrap_or_else(|error| Decision::Deny { error })
}

fn skip(reason: String) -> Decision {
    Decision::Skip { reason, warnings: Vec::new() }
}

/// Why pods such as this one are never injected.
fn excluded(pod: &Pod<'_>, namespace: &str, settings: &Settings) -> Option<String> {
    if pod.is_mirror() {
        return Some("a mirror pod cannot be changed".to_owned());
    }
    if namespace == SYSTEM_NAMESPACE || namespace == settings.operator_namespace {
        return Some(format!("namespace {namespace} is never injected"));
    }
    None
}

fn opted_in(
    pod: &Pod<'_>,
    namespace: &str,
    policies: &[Arc<SidecarPolicy>],
    platform: Platform,
    settings: &Settings,
) -> Result<Decision, InjectError> {
    pod.spec.ok_or(InjectError::NoSpec)?;
    let annotations = pod.annotations()?;
    if let (Some(container), Some(recorded)) = (pod.sidecar(), pod.recorded_policy()) {
        if !pod::mounts_config(container) {
            return Err(InjectError::BrokenSidecar);
        }
        let policy = recorded_policy(policies, namespace, recorded)?;
        clash::configuration(pod, &policy)?;
        let shape = Shape::new(&policy, &annotations, platform, settings)?;
        return Ok(complete(pod, &policy, &annotations, &shape));
    }
    clash::names(pod)?;
    let policy = chosen(policies, namespace, &pod.labels(), &annotations)?;
    clash::configuration(pod, &policy)?;
    clash::mounts(pod, &policy)?;
    let shape = Shape::new(&policy, &annotations, platform, settings)?;
    let mut warnings = clash::network(pod, &policy, shape.placement)?;
    if shape.placement == Placement::Container && pod.ends() {
        warnings.push(
            "mode Container: the pod will not finish while its sidecar runs; use mode Native (nodes 1.29+)"
                .to_owned(),
        );
    }
    whole(pod, &policy, shape, warnings)
}

fn chosen(
    policies: &[Arc<SidecarPolicy>],
    namespace: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Result<Arc<SidecarPolicy>, InjectError> {
    let namespace_name = || namespace.to_owned();
    match select::choose(policies, namespace, labels, annotations) {
        Choice::Chosen(policy) => Ok(policy),
        Choice::Missing { name, existing } => {
            Err(InjectError::MissingPolicy { namespace: namespace_name(), name, existing })
        }
        Choice::None { reasons } => Err(InjectError::NoMatch { namespace: namespace_name(), reasons }),
    }
}

/// The policy that a former pass recorded: it keeps the pod, whatever has been applied since.
fn recorded_policy(
    policies: &[Arc<SidecarPolicy>],
    namespace: &str,
    name: &str,
) -> Result<Arc<SidecarPolicy>, InjectError> {
    let named = BTreeMap::from([(annotations::POLICY.to_owned(), name.to_owned())]);
    match select::choose(policies, namespace, &BTreeMap::new(), &named) {
        Choice::Chosen(policy) => Ok(policy),
        Choice::Missing { .. } | Choice::None { .. } => {
            Err(InjectError::RecordedPolicy { namespace: namespace.to_owned(), name: name.to_owned() })
        }
    }
}

/// The whole sidecar, for a pod that has nothing of it.
fn whole(
    pod: &Pod<'_>,
    policy: &SidecarPolicy,
    shape: Shape,
    warnings: Vec<String>,
) -> Result<Decision, InjectError> {
    let (name, generation) = (policy.name_any(), policy.metadata.generation.unwrap_or_default());
    let mut record = vec![
        (annotations::INJECTED_POLICY, name.clone()),
        (annotations::INJECTED_GENERATION, generation.to_string()),
        (annotations::SHAPE_HASH, shape.hash()?),
        (annotations::DECISION, in_words(&name, generation)),
        (annotations::SERVICE_ACCOUNT, pod.service_account().to_owned()),
    ];
    if pod.annotation(DEFAULT_CONTAINER).is_none()
        && let Some(first) = pod.containers().first().map(pod::name).filter(|name| !name.is_empty())
    {
        record.push((DEFAULT_CONTAINER, first.to_owned()));
    }
    let mut patch = patch::annotations(pod, record);
    patch.extend(patch::volumes(pod, &shape));
    patch.push(patch::container(pod, shape));
    Ok(Decision::Inject { policy: name, generation, patch, warnings })
}

/// What has changed since a former pass: volumes that another webhook dropped, and the account that the rights are for.
fn complete(
    pod: &Pod<'_>,
    policy: &SidecarPolicy,
    annotations: &BTreeMap<String, String>,
    shape: &Shape,
) -> Decision {
    let recorded = annotations.get(annotations::INJECTED_GENERATION).and_then(|text| text.parse().ok());
    let account = pod.service_account();
    let mut patch = Vec::new();
    if annotations.get(annotations::SERVICE_ACCOUNT).is_none_or(|recorded| recorded != account) {
        patch = patch::annotations(pod, vec![(annotations::SERVICE_ACCOUNT, account.to_owned())]);
    }
    patch.extend(patch::volumes(pod, shape));
    Decision::Inject {
        policy: policy.name_any(),
        generation: recorded.or(policy.metadata.generation).unwrap_or_default(),
        patch,
        warnings: Vec::new(),
    }
}

/// The decision as the pod's annotation and the audit log tell it.
pub fn in_words(policy: &str, generation: i64) -> String {
    format!("injected by policy {policy} at generation {generation}")
}
