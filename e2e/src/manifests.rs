//! Manifests of the scenarios, as JSON that a scenario may change before it applies them.
//!
//! All pods keep to the *restricted* Pod Security Standard and ask for next to no CPU, so that many run on two cores.

use std::env;

use crds::names::annotations;
use serde_json::{Map, Value, json};

/// Port of [`backends`]' containers; their Service has port 80.
pub const BACKEND_PORT: u16 = 8080;
/// Where a load serves its report.
pub const REPORT_PORT: u16 = 8081;

/// The image of `workload`, which also has a shell. E2E_WORKLOAD_IMAGE names another one, for a cluster that pulls it.
pub fn workload_image() -> String {
    env::var("E2E_WORKLOAD_IMAGE")
        .unwrap_or_else(|_| format!("sidecar-workload:{}", env!("CARGO_PKG_VERSION")))
}

/// A container that runs `workload` with these arguments.
pub fn container(name: &str, arguments: &[&str]) -> Value {
    json!({
        "name": name,
        "image": workload_image(),
        "imagePullPolicy": "IfNotPresent",
        "args": arguments,
        "resources": {"requests": {"cpu": "1m", "memory": "8Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
        },
    })
}

/// The same with a shell command in the place of `workload`.
pub fn shell(name: &str, command: &str) -> Value {
    let mut container = container(name, &["-c", command]);
    container["command"] = json!(["/bin/sh"]);
    container
}

/// A pod with one container that runs `workload` with these arguments.
pub fn pod(name: &str, arguments: &[&str]) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": pod_spec(&[container("app", arguments)]),
    })
}

pub fn pod_spec(containers: &[Value]) -> Value {
    json!({
        "terminationGracePeriodSeconds": 10,
        "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": containers,
    })
}

/// The manifest with its pods opted in: a Pod, or anything with a pod template.
pub fn opted_in(manifest: Value) -> Value {
    annotated(manifest, annotations::INJECT, "true")
}

/// The manifest with an annotation on its pods.
pub fn annotated(mut manifest: Value, key: &str, value: &str) -> Value {
    let template = if manifest["spec"]["template"].is_null() {
        &mut manifest
    } else {
        &mut manifest["spec"]["template"]
    };
    if template["metadata"].is_null() {
        template["metadata"] = Value::Object(Map::new());
    }
    template["metadata"]["annotations"][key] = json!(value);
    manifest
}

/// A Deployment with the label `app: NAME`.
pub fn deployment(name: &str, replicas: u32, spec: Value) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
        },
    })
}

pub fn job(name: &str, arguments: &[&str]) -> Value {
    let mut spec = pod_spec(&[container("app", arguments)]);
    spec["restartPolicy"] = json!("Never");
    json!({
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {"backoffLimit": 0, "template": {"metadata": {"labels": {"app": name}}, "spec": spec}},
    })
}

/// A Deployment of `workload serve` with further arguments, and its Service: port 80, named `web`, to the containers'
/// port, named `http`.
pub fn backends(name: &str, replicas: u32, arguments: &[&str]) -> Vec<Value> {
    let mut server = container("app", &[&["serve"], arguments].concat());
    server["ports"] = json!([{"name": "http", "containerPort": BACKEND_PORT}]);
    server["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1});
    vec![deployment(name, replicas, pod_spec(&[server])), service(name)]
}

/// The same as a StatefulSet behind a headless Service.
pub fn stateful(name: &str, replicas: u32, arguments: &[&str]) -> Vec<Value> {
    let mut manifests = backends(name, replicas, arguments);
    manifests[0]["kind"] = json!("StatefulSet");
    let spec = &mut manifests[0]["spec"];
    // The same by another name, with other fields: one after the other is its own way.
    spec.as_object_mut().map(|spec| spec.remove("strategy"));
    spec["serviceName"] = json!(name);
    spec["podManagementPolicy"] = json!("Parallel");
    manifests[1]["spec"]["clusterIP"] = json!("None");
    manifests
}

pub fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": "web", "port": 80, "targetPort": "http"}]},
    })
}

/// A policy with these listeners, whose sidecars ask for next to no CPU.
pub fn policy(name: &str, listeners: &[Value]) -> Value {
    json!({
        "apiVersion": "sidecar.io/v1alpha1",
        "kind": "SidecarPolicy",
        "metadata": {"name": name},
        "spec": {
            "injection": {"resources": {"requests": {"cpu": "1m", "memory": "16Mi"}}, "drainTimeout": "5s"},
            "http": listeners,
        },
    })
}

/// A listener with one site of these backends.
pub fn listener(name: &str, port: u16, backends: &[Value]) -> Value {
    json!({"name": name, "port": port, "sites": [{"name": "primary", "backends": backends}]})
}

/// The backends behind port 80 of a Service of the same namespace.
pub fn to_service(name: &str) -> Value {
    json!({"service": {"name": name, "port": 80}})
}
