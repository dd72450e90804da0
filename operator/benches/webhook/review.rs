//! The review that is sent: a pod of a Deployment as an API server hands it over, of about 5 KiB.

use serde_json::{Value, json};

pub(crate) fn bytes() -> Vec<u8> {
    review().to_string().into_bytes()
}

fn review() -> Value {
    let env: Vec<Value> = (0..20)
        .map(|index| json!({"name": format!("SETTING_{index}"), "value": format!("some value of setting {index}")}))
        .collect();
    let probe = json!({
        "httpGet": {"path": "/health", "port": 8080, "scheme": "HTTP"},
        "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3,
    });
    let container = |name: &str, port: u16| {
        json!({
            "name": name,
            "image": format!("registry.example.com/team/{name}:1.2.3"),
            "ports": [{"containerPort": port, "protocol": "TCP"}],
            "env": env,
            "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}, "limits": {"memory": "256Mi"}},
            "livenessProbe": probe,
            "readinessProbe": probe,
            "volumeMounts": [
                {"name": "data", "mountPath": "/data"},
                {"name": "kube-api-access-x2x4z", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
            ],
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": "IfNotPresent",
        })
    };
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "analytics",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:kube-system", "system:authenticated"],
            },
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
            "oldObject": null,
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "generateName": "orders-7d9f8c6b5d-",
                    "labels": {"app": "orders", "team": "data", "pod-template-hash": "7d9f8c6b5d"},
                    "annotations": {"sidecar.io/inject": "true", "prometheus.io/scrape": "true"},
                    "ownerReferences": [{
                        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "orders-7d9f8c6b5d",
                        "uid": "9a1b0c2d-1111-2222-3333-444455556666", "controller": true, "blockOwnerDeletion": true,
                    }],
                },
                "spec": {
                    "volumes": [
                        {"name": "data", "emptyDir": {}},
                        {"name": "kube-api-access-x2x4z", "projected": {"defaultMode": 420, "sources": [
                            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        ]}},
                    ],
                    "initContainers": [container("migrate", 8081)],
                    "containers": [container("orders", 8080)],
                    "restartPolicy": "Always",
                    "terminationGracePeriodSeconds": 30,
                    "dnsPolicy": "ClusterFirst",
                    "serviceAccountName": "orders",
                    "schedulerName": "default-scheduler",
                    "tolerations": [
                        {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                    ],
                },
            },
        },
    })
}
