//! Which pods are changed, which are left alone, and what those hear that are refused.

use anyhow::{Context, Result, ensure};
use crds::names::annotations;
use e2e::{
    Load, Namespace,
    manifests::{annotated, backends, listener, opted_in, pod, policy, to_service},
    sidecar, with_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};

/// A policy that is Ready with nothing behind it.
fn lonely() -> Value {
    policy("web", &[listener("web", 9000, &[json!({"addresses": ["10.9.0.1:9000"]})])])
}

fn web() -> Value {
    policy("web", &[listener("web", 9000, &[to_service("web")])])
}

/// What the API server would store for the pod in a namespace, without what differs from one creation to the next.
async fn as_created(ns: &Namespace, namespace: &str, pod: &Value) -> Result<String> {
    let create = ["-n", namespace, "create", "--dry-run=server", "-o", "json", "-f", "-"];
    let output = ns.cluster.kubectl(&create, &pod.to_string()).await?.accepted()?;
    let mut created: Value = serde_json::from_str(&output.stdout)?;
    let metadata = created["metadata"].as_object_mut().context("a pod has metadata")?;
    for field in ["uid", "creationTimestamp", "namespace", "managedFields"] {
        metadata.remove(field);
    }
    Ok(created.to_string())
}

#[tokio::test]
async fn a_pod_that_did_not_opt_in_is_byte_identical_to_one_where_no_webhook_is() -> Result<()> {
    with_namespace("identical", async |ns| {
        ns.apply_policy(&lonely()).await?;
        let mut plain = pod("plain", &["sleep"]);
        // The name of the token's volume would be random.
        plain["spec"]["automountServiceAccountToken"] = json!(false);
        let pods = [
            plain.clone(),
            annotated(plain.clone(), "team", "data"),
            annotated(plain, annotations::INJECT, "false"),
        ];
        for pod in &pods {
            // No webhook of ours is ever asked about pods of kube-system.
            let (here, there) =
                (as_created(ns, &ns.name, pod).await?, as_created(ns, "kube-system", pod).await?);
            ensure!(here == there, "changed: {here}\nwithout a webhook: {there}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_annotation_value_that_is_a_typo_is_denied_with_the_remedy() -> Result<()> {
    with_namespace("typo", async |ns| {
        ns.apply_policy(&lonely()).await?;
        let refusal = ns
            .try_apply(&[annotated(pod("typo", &["sleep"]), annotations::INJECT, "yes")])
            .await?
            .refused()?;
        for part in [annotations::INJECT, "yes", "\"true\"", "\"false\""] {
            let plain = refusal.replace('\\', "");
            ensure!(plain.contains(part), "the refusal names {part}: {refusal}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_opted_in_pod_that_no_policy_matches_is_denied_and_hears_why_each_did_not() -> Result<()> {
    with_namespace("unmatched", async |ns| {
        let mut other = lonely();
        other["metadata"]["name"] = json!("for-others");
        other["spec"]["podSelector"] = json!({"matchLabels": {"team": "others"}});
        ns.apply_policy(&other).await?;
        let refusal = ns.try_apply(&[opted_in(pod("lonely", &["sleep"]))]).await?.refused()?;
        ensure!(refusal.contains("for-others"), "the refusal names the policy: {refusal}");
        ensure!(refusal.contains("team=others"), "the refusal says why it does not match: {refusal}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn policy_and_pod_in_one_kubectl_apply_work() -> Result<()> {
    with_namespace("together", async |ns| {
        let mut all = backends("web", 1, &[]);
        all.push(web());
        all.push(Load::manifest("client", 9000));
        ns.apply(&all).await?;
        ns.rolled_out("web").await?;
        Load::of(ns, "client").await?.more(100).await?;
        sidecar(&ns.api::<Pod>().get("client").await?).map(drop)
    })
    .await
}

#[tokio::test]
async fn a_pod_with_only_a_generated_name_works() -> Result<()> {
    with_namespace("generated", async |ns| {
        ns.apply(&backends("web", 1, &[])).await?;
        ns.apply_policy(&web()).await?;
        ns.rolled_out("web").await?;
        let mut client = Load::manifest("client", 9000);
        client["metadata"] = json!({"generateName": "client-", "annotations": {annotations::INJECT: "true"}});
        ns.kubectl(&["create", "-f", "-"], &client.to_string()).await?.accepted()?;
        let pods = ns.pods("app!=web").await?;
        ensure!(pods.len() == 1, "one client, and not {}", pods.len());
        sidecar(&pods[0])?;
        Load::of(ns, &pods[0].name_any()).await?.unharmed().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn the_decision_is_an_audit_annotation() -> Result<()> {
    with_namespace("audited", async |ns| {
        ns.apply_policy(&lonely()).await?;
        ns.apply(&[opted_in(pod("audited", &["sleep"]))]).await?;
        let recorded = ns.audit_annotations("audited").await?;
        let decision = recorded
            .iter()
            .find(|(key, _)| key.starts_with("inject.sidecar.io/") && key.contains("decision"));
        let (_, decision) = decision.with_context(|| format!("the decision is among {recorded:?}"))?;
        ensure!(decision.contains("web"), "it names the policy: {decision}");
        Ok(())
    })
    .await
}
