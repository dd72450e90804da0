//! Whole pods, as the API server would store them.

use serde_json::{Value, json};

use super::{NATIVE, ORDINARY, denial, injected, pod, policy};

/// The container that the policy `data` gives by default.
fn sidecar(mode: &str) -> Value {
    let mut container = json!({
        "name": "sidecar",
        "image": "sidecar:test",
        "imagePullPolicy": "IfNotPresent",
        "args": [
            "run", "--config", "/etc/sidecar", "--config-map", "sidecar-data", "--state-dir", "/var/run/sidecar",
            "--mode", mode, "--log-level", "info",
        ],
        "env": [
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}},
            {"name": "POD_NAMESPACE", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}},
            {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "spec.nodeName"}}},
            {"name": "SIDECAR_ZONE", "valueFrom": {"fieldRef": {
                "apiVersion": "v1", "fieldPath": "metadata.labels['topology.kubernetes.io/zone']",
            }}},
        ],
        "ports": [{"name": "sidecar-admin", "containerPort": 15470, "protocol": "TCP"}],
        "startupProbe": {
            "httpGet": {"path": "/ready", "port": 15470}, "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": 600,
        },
        "livenessProbe": {
            "httpGet": {"path": "/live", "port": 15470}, "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
        },
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
        "securityContext": {
            "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}, "privileged": false,
            "readOnlyRootFilesystem": true, "runAsGroup": 65532, "runAsNonRoot": true, "runAsUser": 65532,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "sidecar-config", "mountPath": "/etc/sidecar", "readOnly": true},
            {"name": "sidecar-token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": true},
            {"name": "sidecar-state", "mountPath": "/var/run/sidecar"},
        ],
    });
    if mode == "native" {
        container["lifecycle"] = json!({"preStop": {"exec": {"command": ["/sidecar", "leave", "--state-dir", "/var/run/sidecar"]}}});
        container["restartPolicy"] = json!("Always");
    }
    container
}

fn volumes() -> Vec<Value> {
    vec![
        json!({"name": "sidecar-config", "configMap": {"name": "sidecar-data", "optional": true, "defaultMode": 420}}),
        json!({"name": "sidecar-token", "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
            ]}},
        ]}}),
        json!({"name": "sidecar-state", "emptyDir": {"medium": "Memory", "sizeLimit": "16Mi"}}),
    ]
}

#[test]
fn a_plain_pod_gets_the_whole_sidecar() {
    let actual = injected(&pod(&[]), &[policy("data", json!({}))], NATIVE);
    let hash = actual["metadata"]["annotations"]["sidecar.io/shape-hash"].clone();
    let expected = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web", "annotations": {
            "kubectl.kubernetes.io/default-container": "app",
            "sidecar.io/decision": "injected by policy data at generation 3",
            "sidecar.io/inject": "true",
            "sidecar.io/injected-generation": "3",
            "sidecar.io/injected-policy": "data",
            "sidecar.io/service-account": "default",
            "sidecar.io/shape-hash": hash,
        }},
        "spec": {
            "containers": [{"name": "app", "image": "app:1"}],
            "initContainers": [sidecar("native")],
            "volumes": volumes(),
        },
    });
    assert_eq!(actual, expected);
}

#[test]
fn a_pod_with_everything_of_its_own_keeps_it_all() {
    let mut rich = pod(&[("kubectl.kubernetes.io/default-container", "helper"), ("a~b/c", "kept")]);
    rich["metadata"]["labels"] = json!({"app": "web"});
    rich["spec"] = json!({
        "serviceAccountName": "robot",
        "automountServiceAccountToken": false,
        "fieldOfTomorrow": {"a": [1, 2]},
        "initContainers": [{"name": "migrate"}, {"name": "mesh", "restartPolicy": "Always"}],
        "containers": [{"name": "app", "livenessProbe": {"tcpSocket": {"port": 1}}}, {"name": "helper"}],
        "volumes": [{"name": "data", "emptyDir": {}}],
    });
    let actual = injected(&rich, &[policy("data", json!({}))], ORDINARY);
    let mut expected = rich.clone();
    expected["metadata"]["annotations"] = actual["metadata"]["annotations"].clone();
    expected["spec"]["containers"].as_array_mut().unwrap().insert(0, sidecar("container"));
    expected["spec"]["volumes"].as_array_mut().unwrap().extend(volumes());
    assert_eq!(actual, expected);
    let annotations = &actual["metadata"]["annotations"];
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "helper");
    assert_eq!(annotations["a~b/c"], "kept");
    assert_eq!(annotations["sidecar.io/service-account"], "robot");

    let native = injected(&rich, &[policy("data", json!({}))], NATIVE);
    let names: Vec<_> =
        native["spec"]["initContainers"].as_array().unwrap().iter().map(|c| c["name"].clone()).collect();
    assert_eq!(names, ["sidecar", "migrate", "mesh"]);
}

#[test]
fn the_secrets_of_a_policy_are_mounted_into_the_sidecar_alone() {
    let policy = policy(
        "data",
        json!({"http": [{
            "name": "web", "port": 8443,
            "tls": {"certificateSecret": {"name": "web-tls"}, "clientCa": {"secret": {"name": "web-tls"}}},
            "sites": [{
                "name": "main",
                "backends": [{"addresses": ["10.0.0.1:443"]}],
                "tls": {"caSecret": {"name": "dr-ca", "key": "root.pem"}, "clientCertificateSecret": {"name": "web-tls"}},
            }],
        }]}),
    );
    let actual = injected(&pod(&[]), &[policy], NATIVE);
    let mut expected = sidecar("native");
    let mount = json!({"name": "sidecar-secrets", "mountPath": "/var/run/sidecar-secrets", "readOnly": true});
    expected["volumeMounts"].as_array_mut().unwrap().push(mount);
    assert_eq!(actual["spec"]["initContainers"], json!([expected]));
    assert_eq!(actual["spec"]["containers"], json!([{"name": "app", "image": "app:1"}]));
    let volume = json!({"name": "sidecar-secrets", "projected": {"defaultMode": 292, "sources": [
        {"secret": {"name": "dr-ca", "items": [{"key": "root.pem", "path": "dr-ca/root.pem"}]}},
        {"secret": {"name": "web-tls", "items": [
            {"key": "ca.crt", "path": "web-tls/ca.crt"},
            {"key": "tls.crt", "path": "web-tls/tls.crt"},
            {"key": "tls.key", "path": "web-tls/tls.key"},
        ]}},
    ]}});
    assert_eq!(actual["spec"]["volumes"].as_array().unwrap()[3..], [volume]);
}

#[test]
fn a_volume_of_the_pod_is_mounted_into_the_sidecar_too_and_must_be_there() {
    let mounts = json!([{"name": "sockets", "mountPath": "/run/app"}]);
    let policies = [policy("data", json!({"injection": {"volumeMounts": mounts}}))];
    let message = denial(&pod(&[]), &policies, NATIVE);
    assert!(message.contains("mounts volume sockets") && message.contains("add a volume"), "{message}");

    let mut with = pod(&[]);
    with["spec"]["volumes"] = json!([{"name": "sockets", "emptyDir": {}}]);
    let actual = injected(&with, &policies, NATIVE);
    let mounted = json!({"name": "sockets", "mountPath": "/run/app", "readOnly": false});
    let mounts = actual["spec"]["initContainers"][0]["volumeMounts"].as_array().unwrap();
    assert_eq!(mounts.last(), Some(&mounted));
    assert_eq!(actual["spec"]["volumes"].as_array().unwrap().len(), 1 + volumes().len());
}
