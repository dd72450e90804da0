//! Which policy an opted-in pod gets: the one it names; else, of those that select it, the highest priority, then the
//! oldest, then the first name. Never random.

use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};

use crds::{names::annotations, policy::SidecarPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use kube::ResourceExt;

use super::error::shown;

/// The policy of a pod, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    Chosen(Arc<SidecarPolicy>),
    /// `sidecar.io/policy` names a policy that the namespace does not have.
    Missing {
        name: String,
        existing: Vec<String>,
    },
    /// No policy of the namespace selects the pod: each one's name, and why it does not.
    None {
        reasons: Vec<(String, String)>,
    },
}

/// Chooses among the policies of `namespace`; those of other namespaces may be in the slice and are left out.
/// A policy that the pod names is taken whatever its selector says.
pub fn choose(
    policies: &[Arc<SidecarPolicy>],
    namespace: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Choice {
    let local = || policies.iter().filter(|policy| policy.metadata.namespace.as_deref() == Some(namespace));
    if let Some(name) = annotations.get(annotations::POLICY) {
        return match local().find(|policy| policy.metadata.name.as_deref() == Some(name)) {
            Some(policy) => Choice::Chosen(policy.clone()),
            None => {
                let mut existing: Vec<String> = local().map(|policy| policy.name_any()).collect();
                existing.sort();
                Choice::Missing { name: name.clone(), existing }
            }
        };
    }
    let selecting = local().filter(|policy| mismatch(&policy.spec.pod_selector, labels).is_none());
    if let Some(policy) = selecting.min_by_key(|policy| rank(policy)) {
        return Choice::Chosen(policy.clone());
    }
    let mut reasons: Vec<(String, String)> = local()
        .filter_map(|policy| Some((policy.name_any(), mismatch(&policy.spec.pod_selector, labels)?)))
        .collect();
    reasons.sort();
    Choice::None { reasons }
}

/// The first in this order wins. A policy without a creation time, in a file, counts as the youngest.
fn rank(policy: &SidecarPolicy) -> impl Ord + use<> {
    let created = policy.metadata.creation_timestamp.as_ref().map(|time| time.0);
    (Reverse(policy.spec.priority), created.is_none(), created, policy.name_any())
}

/// Why the selector does not select these labels; `None` when it does.
fn mismatch(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> Option<String> {
    let equal = selector.match_labels.iter().flatten().find_map(|(key, wanted)| match labels.get(key) {
        Some(value) if value == wanted => None,
        Some(value) => Some(format!("it wants label {key}={wanted} and the pod has {}", shown(value))),
        None => Some(format!("it wants label {key}={wanted} and the pod has no {key}")),
    });
    equal.or_else(|| {
        selector.match_expressions.iter().flatten().find_map(|requirement| unmet(requirement, labels))
    })
}

fn unmet(requirement: &LabelSelectorRequirement, labels: &BTreeMap<String, String>) -> Option<String> {
    let LabelSelectorRequirement { key, operator, values } = requirement;
    let values = values.as_deref().unwrap_or_default();
    let actual = labels.get(key);
    let listed = actual.is_some_and(|value| values.contains(value));
    let has = || actual.map_or_else(|| format!("no {key}"), |value| shown(value));
    let (met, wanted) = match operator.as_str() {
        "In" | "NotIn" if values.is_empty() => {
            return Some(format!("its podSelector is invalid: {operator} of {key} needs values"));
        }
        "In" => (listed, format!("label {key} to be one of {}", values.join(", "))),
        "NotIn" => (!listed, format!("label {key} to be none of {}", values.join(", "))),
        "Exists" => (actual.is_some(), format!("a label {key}")),
        "DoesNotExist" => (actual.is_none(), format!("no label {key}")),
        _ => {
            return Some(format!(
                "its podSelector is invalid: operator {} is not one of In, NotIn, Exists, DoesNotExist",
                shown(operator)
            ));
        }
    };
    (!met).then(|| format!("it wants {wanted} and the pod has {}", has()))
}
