//! What a policy names: Services that are missing, arrive later, change, or belong to somebody else.

use std::time::Duration;

use anyhow::{Result, ensure};
use crds::{names::annotations, policy::conditions};
use e2e::{
    Load, Namespace, eventually,
    manifests::{backends, listener, policy, service, to_service},
    sidecar_restarts, with_namespace,
};
use k8s_openapi::api::core::v1;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

const RESOLVED: Duration = Duration::from_secs(15);

fn to_foreign_service(namespace: &str) -> Value {
    policy(
        "web",
        &[listener("web", 9000, &[json!({"service": {"name": "web", "namespace": namespace, "port": 80}})])],
    )
}

async fn consent(ns: &Namespace, to: Option<&str>) -> Result<()> {
    let namespaces: Api<v1::Namespace> = Api::all(ns.cluster.client.clone());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {annotations::EXPORT_TO: to}}}));
    namespaces.patch(&ns.name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// Waits until the load is answered by nothing but backends of this name.
async fn answered_by(load: &Load<'_>, name: &str) -> Result<()> {
    eventually(RESOLVED, &format!("{name} answers all requests of {}", load.pod), async || {
        let before = load.report().await?.failed;
        let shares = load.more(20).await?;
        let failed = load.report().await?.failed - before;
        Ok((failed == 0 && shares.keys().all(|pod| pod.starts_with(name))).then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_service_that_does_not_exist_is_a_condition_and_a_503_that_names_it_until_it_is_created()
-> Result<()> {
    with_namespace("missing", async |ns| {
        ns.apply(&[policy("web", &[listener("web", 9000, &[to_service("web")])])]).await?;
        let (_, message) = ns.condition("web", conditions::RESOLVED_REFS, "False").await?;
        ensure!(message.contains("web"), "the condition names the Service: {message}");
        // The pod starts all the same.
        let load = Load::start(ns, "client", 9000).await?;
        let report = load.report().await?;
        let text = report.failures.first().map(|failure| failure.text.clone()).unwrap_or_default();
        ensure!(report.failed == report.requests, "nothing can answer yet: {report:?}");
        ensure!(
            text.starts_with("503") && text.contains(&format!("{}/web", ns.name)),
            "it names the Service: {text}"
        );
        ns.apply(&backends("web", 2, &[])).await?;
        ns.rolled_out("web").await?;
        answered_by(&load, "web").await?;
        ns.condition("web", conditions::RESOLVED_REFS, "True").await?;
        let pod = ns.ready("client").await?;
        ensure!(sidecar_restarts(&pod) == 0, "the sidecar was restarted");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_service_port_is_followed_when_the_service_changes() -> Result<()> {
    with_namespace("followed", async |ns| {
        ns.apply(&backends("web", 1, &[])).await?;
        ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
        ns.rolled_out("web").await?;
        let load = Load::start(ns, "client", 9000).await?;
        let mut renamed = service("web");
        renamed["spec"]["ports"][0]["name"] = json!("renamed");
        ns.apply(&[renamed]).await?;
        // The slices have the new port name now; a sidecar that still looked for the old one would find no backend.
        answered_by(&load, "web").await?;
        load.more(200).await.map(drop)
    })
    .await
}

#[tokio::test]
async fn services_of_a_namespace_without_consent_are_refused_with_a_condition_until_it_consents() -> Result<()>
{
    with_namespace("consent", async |ns| {
        ns.with_another(&[], async |storage| {
            storage.apply(&backends("web", 1, &[])).await?;
            storage.rolled_out("web").await?;
            ns.apply(&[to_foreign_service(&storage.name)]).await?;
            let (_, message) = ns.condition("web", conditions::RESOLVED_REFS, "False").await?;
            for part in [storage.name.as_str(), annotations::EXPORT_TO] {
                ensure!(message.contains(part), "the condition says what to do, with {part}: {message}");
            }
            let load = Load::start(ns, "client", 9000).await?;
            let report = load.report().await?;
            ensure!(report.statuses.keys().all(|status| *status == 503), "nothing is reached: {report:?}");

            consent(storage, Some(&format!("elsewhere, {}", ns.name))).await?;
            ns.condition("web", conditions::RESOLVED_REFS, "True").await?;
            answered_by(&load, "web").await?;

            consent(storage, None).await?;
            ns.condition("web", conditions::RESOLVED_REFS, "False").await?;
            let what = "the backends of a namespace that takes its consent back are left";
            eventually(RESOLVED, what, async || Ok(load.more(20).await?.is_empty().then_some(()))).await
        })
        .await
    })
    .await
}
