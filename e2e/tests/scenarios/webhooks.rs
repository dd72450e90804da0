//! Webhooks of others that run after ours.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use e2e::{
    Load, Namespace, Operator, eventually,
    manifests::{backends, container, deployment, listener, pod_spec, policy, to_service},
    sidecar, with_namespace,
};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration,
    core::v1::{EnvVar, Pod},
};
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;

/// Pods with this label are shown to the other webhook.
const LABEL: &str = "e2e-late-webhook";

/// Runs a part of the scenario with `workload webhook` in this mode called after the operator's webhook, in this namespace.
async fn with_webhook_after_ours(
    ns: &Namespace,
    mode: &str,
    part: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let host = format!("late.{}.svc", ns.name);
    let certified = rcgen::generate_simple_self_signed([host])?;
    let (certificate, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let mut server = container("app", &["webhook", "--mode", mode, "--certificate-dir", "/tls"]);
    server["volumeMounts"] = json!([{"name": "tls", "mountPath": "/tls"}]);
    server["readinessProbe"] = json!({"tcpSocket": {"port": 8443}, "periodSeconds": 1});
    let mut spec = pod_spec(&[server]);
    spec["volumes"] = json!([{"name": "tls", "secret": {"secretName": "late"}}]);
    // Webhooks are called in the order of their configurations' names.
    let name = format!("zz-{}", ns.name);
    ensure!(name.as_str() > Operator::NAME, "{name} sorts after ours");
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": [{
            "name": "late.example.com",
            "clientConfig": {
                "service": {"name": "late", "namespace": ns.name, "port": 443},
                "caBundle": BASE64_STANDARD.encode(&certificate),
            },
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Fail",
            // Asked again after ours was, so that it has the last word.
            "reinvocationPolicy": "IfNeeded",
            "timeoutSeconds": 5,
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns.name}},
            "objectSelector": {"matchLabels": {LABEL: mode}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
        }],
    });
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "late"}, "stringData": {"tls.crt": certificate, "tls.key": key}});
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "late"},
        "spec": {"selector": {"app": "late"}, "ports": [{"port": 443, "targetPort": 8443}]},
    });
    ns.apply(&[secret, service, deployment("late", 1, spec), webhook]).await?;
    ns.rolled_out("late").await?;
    let outcome = part().await;
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(ns.cluster.client.clone());
    configurations.delete(&name, &DeleteParams::default()).await?;
    outcome
}

async fn web(ns: &Namespace) -> Result<()> {
    ns.apply(&backends("web", 2, &[])).await?;
    ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
    ns.rolled_out("web").await.map(drop)
}

fn labelled(mode: &str) -> serde_json::Value {
    let mut client = Load::manifest("client", 9000);
    client["metadata"]["labels"][LABEL] = json!(mode);
    client
}

/// The way from the API server to a new Service takes a moment; until then the other webhook is what fails.
async fn reached(ns: &Namespace, mode: &str) -> Result<e2e::Output> {
    eventually(Duration::from_secs(30), "the other webhook answers", async || {
        let output = ns.try_apply(&[labelled(mode)]).await?;
        Ok((!output.stderr.contains("failed calling webhook")).then_some(output))
    })
    .await
}

#[tokio::test]
async fn a_webhook_after_ours_that_changes_the_pod_leaves_it_right() -> Result<()> {
    with_namespace("late", async |ns| {
        web(ns).await?;
        with_webhook_after_ours(ns, "change", async || {
            reached(ns, "change").await?.accepted()?;
            let pod = ns.api::<Pod>().get("client").await?;
            let late =
                |env: &Option<Vec<EnvVar>>| env.iter().flatten().any(|variable| variable.name == "LATE");
            ensure!(pod.labels().get("late").is_some_and(|value| value == "true"), "it was changed after us");
            ensure!(late(&sidecar(&pod)?.env), "what it added to the sidecar is still there");
            let spec = pod.spec.context("a pod has a spec")?;
            let names: Vec<&str> = spec.containers.iter().map(|container| container.name.as_str()).collect();
            ensure!(names == ["app", "late"], "the containers are {names:?}");
            Load::of(ns, "client").await?.unharmed().await.map(drop)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn a_webhook_after_ours_that_removes_the_sidecar_gets_the_pod_refused() -> Result<()> {
    with_namespace("removed", async |ns| {
        web(ns).await?;
        with_webhook_after_ours(ns, "remove-sidecar", async || {
            let refusal = reached(ns, "remove-sidecar").await?.refused()?;
            ensure!(refusal.contains("ValidatingAdmissionPolicy"), "the policy refuses it: {refusal}");
            ensure!(refusal.contains("webhook"), "it says what may have happened: {refusal}");
            ensure!(ns.api::<Pod>().get_opt("client").await?.is_none(), "no bare pod");
            Ok(())
        })
        .await
    })
    .await
}
