//! opt-in -> choose a policy -> parse the pod's overrides -> build the shape -> look for clashes -> patch.
//!
//! Pure: the webhook, `operator inject` and the controller's counts come from the same code. The pod is raw JSON and the
//! patch only adds, so that no field of the user's can be lost, whether this release knows it or not.

pub mod error;
pub mod patch;
pub mod select;
pub mod shape;

use std::sync::Arc;

use crds::policy::SidecarPolicy;
pub use error::InjectError;
pub use patch::PatchOperation;
use serde_json::Value;

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
    let _ = (request, policies, platform, settings);
    Decision::Skip { reason: "not annotated".to_owned(), warnings: Vec::new() }
}
