//! What the injection promises, by table, by golden pod and by property.

mod golden;
mod opting;
mod overriding;
mod properties;
mod selecting;

use std::{collections::BTreeMap, sync::Arc};

use crds::policy::SidecarPolicy;
use serde_json::{Value, json};

use super::{Decision, Platform, Request, Settings, inject};

const NATIVE: Platform = Platform { native_sidecars: true };
const ORDINARY: Platform = Platform { native_sidecars: false };

fn settings() -> Settings {
    Settings { sidecar_image: "sidecar:test".to_owned(), operator_namespace: "sidecar-system".to_owned() }
}

fn policy(name: &str, spec: Value) -> Arc<SidecarPolicy> {
    let metadata = json!({"name": name, "namespace": "analytics", "generation": 3});
    let policy = json!({"apiVersion": "sidecar.io/v1alpha1", "kind": "SidecarPolicy", "metadata": metadata, "spec": spec});
    Arc::new(serde_json::from_value(policy).unwrap())
}

/// An opted-in pod with further annotations.
fn pod(annotations: &[(&str, &str)]) -> Value {
    let mut all: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    all.entry("sidecar.io/inject").or_insert("true");
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": all},
        "spec": {"containers": [{"name": "app", "image": "app:1"}]},
    })
}

fn decide(pod: &Value, policies: &[Arc<SidecarPolicy>], platform: Platform) -> Decision {
    inject(&Request { pod, namespace: "analytics" }, policies, platform, &settings())
}

/// The pod after its injection by one policy.
fn injected(pod: &Value, policies: &[Arc<SidecarPolicy>], platform: Platform) -> Value {
    match decide(pod, policies, platform) {
        Decision::Inject { patch, .. } => patched(pod, &patch),
        other => panic!("not injected: {other:?}"),
    }
}

fn patched(pod: &Value, patch: &[super::PatchOperation]) -> Value {
    let patch: json_patch::Patch = serde_json::from_value(serde_json::to_value(patch).unwrap()).unwrap();
    let mut pod = pod.clone();
    json_patch::patch(&mut pod, &patch).unwrap();
    pod
}

fn denial(pod: &Value, policies: &[Arc<SidecarPolicy>], platform: Platform) -> String {
    match decide(pod, policies, platform) {
        Decision::Deny { error } => error.to_string(),
        other => panic!("not denied: {other:?}"),
    }
}
