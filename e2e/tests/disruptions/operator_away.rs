//! While no operator runs: what goes on, what waits, and what happens when it is back.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::names;
use e2e::{
    Load, Namespace, Operator, eventually,
    manifests::{
        REPORT_PORT, backends, container, deployment, listener, opted_in, pod, pod_spec, policy, to_service,
    },
    sidecar, with_cluster_alone,
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{self, ConfigMap, Pod},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

async fn web(ns: &Namespace) -> Result<()> {
    ns.apply(&backends("web", 2, &[])).await?;
    ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
    ns.rolled_out("web").await.map(drop)
}

#[tokio::test]
async fn pods_that_did_not_opt_in_start_and_any_pod_and_namespace_is_deleted_without_the_operator()
-> Result<()> {
    with_cluster_alone("bystanders", async |ns| {
        web(ns).await?;
        Load::start(ns, "client", 9000).await?;
        Operator::of(&ns.cluster)
            .away(async || {
                let mut annotated = pod("annotated", &["sleep"]);
                annotated["metadata"]["annotations"] = json!({"team": "data", "sidecar.io/inject": "false"});
                let mut bare = pod("bare", &["sleep"]);
                bare["metadata"] = json!({"name": "bare"});
                for (name, manifest) in [("annotated", annotated), ("bare", bare)] {
                    ns.apply(&[manifest]).await?;
                    let pod = ns.ready(name).await?;
                    let spec = pod.spec.as_ref().context("a pod has a spec")?;
                    ensure!(
                        spec.init_containers.is_none() && spec.containers.len() == 1,
                        "{name} was changed: {spec:?}"
                    );
                }
                ns.kubectl(&["delete", "pod", "client", "--timeout=30s"], "").await?.accepted()?;
                ns.gone("client").await?;
                ns.with_another(&[], async |other| {
                    other.apply(&[policy("web", &[])]).await?;
                    let namespaces: Api<v1::Namespace> = Api::all(ns.cluster.client.clone());
                    namespaces.delete(&other.name, &DeleteParams::default()).await?;
                    eventually(Duration::from_secs(60), "a namespace with a policy is gone", async || {
                        Ok(namespaces.get_opt(&other.name).await?.is_none().then_some(()))
                    })
                    .await
                })
                .await
            })
            .await
    })
    .await
}

#[tokio::test]
async fn an_opted_in_pod_is_refused_while_the_operator_is_down_and_admitted_after_it_returns() -> Result<()> {
    with_cluster_alone("refused", async |ns| {
        web(ns).await?;
        let deployments = ns.api::<Deployment>();
        Operator::of(&ns.cluster)
            .away(async || {
                let refusal = ns.try_apply(&[opted_in(pod("single", &["sleep"]))]).await?.refused()?;
                ensure!(refusal.contains("inject.sidecar.io"), "the refusal names the webhook: {refusal}");
                let report_port = REPORT_PORT.to_string();
                let load = container("app", &Load::arguments("http://127.0.0.1:9000/", &report_port));
                ns.apply(&[opted_in(deployment("client", 1, pod_spec(&[load])))]).await?;
                eventually(Duration::from_secs(30), "the Deployment's pod is refused", async || {
                    let conditions =
                        deployments.get("client").await?.status.and_then(|status| status.conditions);
                    let refused = conditions
                        .into_iter()
                        .flatten()
                        .any(|c| c.type_ == "ReplicaFailure" && c.status == "True");
                    Ok(refused.then_some(()))
                })
                .await?;
                ensure!(ns.pods("app=client").await?.is_empty(), "no bare pod");
                Ok(())
            })
            .await?;
        let client = ns.rolled_out("client").await?;
        sidecar(&client[0])?;
        Load::of(ns, &client[0].name_any()).await?.unharmed().await.map(drop)
    })
    .await
}

/// The configuration with its one listener's backends changed to a Service, by hand.
fn edited(good: &str, from: &str, to: &str) -> Result<Value> {
    let text = good.replace(from, to);
    ensure!(text != good, "{from} is in the configuration: {good}");
    let mut edited: Value = serde_yaml::from_str(&text)?;
    edited["soonToCome"] = json!({"nobody": "knows it yet"});
    Ok(edited)
}

#[tokio::test]
async fn a_config_map_broken_without_the_operator_is_reported_and_the_old_configuration_stays() -> Result<()>
{
    with_cluster_alone("broken", async |ns| {
        web(ns).await?;
        let load = Load::start(ns, "client", 9000).await?;
        let (maps, name) = (ns.api::<ConfigMap>(), names::policy_object("web"));
        let key = names::config_key(crds::config::VERSION);
        let good =
            maps.get(&name).await?.data.and_then(|mut data| data.remove(&key)).context("a configuration")?;
        let write = async |text: &str| {
            let patch = Patch::Merge(json!({"data": {key.as_str(): text}}));
            maps.patch(&name, &PatchParams::default(), &patch).await
        };
        Operator::of(&ns.cluster)
            .away(async || {
                write("http: [{name: web, port: none}]").await?;
                eventually(
                    Duration::from_secs(15),
                    "the sidecar reports the bad configuration",
                    async || {
                        let log = ns.logs("client", names::CONTAINER).await?;
                        Ok(log
                            .lines()
                            .any(|line| line.contains("WARN") || line.contains("ERROR"))
                            .then_some(()))
                    },
                )
                .await?;
                let shares = load.more(200).await?;
                ensure!(shares.len() == 2, "the old configuration serves: {shares:?}");
                load.unharmed().await.map(drop)
            })
            .await?;
        eventually(Duration::from_secs(15), "the operator has repaired it", async || {
            let data = maps.get(&name).await?.data.unwrap_or_default();
            Ok((data.get(&key) == Some(&good)).then_some(()))
        })
        .await?;
        load.unharmed().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_sidecar_reads_what_it_knows_of_a_configuration_that_a_newer_operator_wrote() -> Result<()> {
    with_cluster_alone("newer", async |ns| {
        web(ns).await?;
        let addresses: Vec<String> = ns
            .pods("app=web")
            .await?
            .iter()
            .filter_map(|pod| Some(format!("{}:8080", pod.status.as_ref()?.pod_ip.as_ref()?)))
            .collect();
        let load = Load::start(ns, "client", 9000).await?;
        let (maps, name) = (ns.api::<ConfigMap>(), names::policy_object("web"));
        let key = names::config_key(crds::config::VERSION);
        let good =
            maps.get(&name).await?.data.and_then(|mut data| data.remove(&key)).context("a configuration")?;
        Operator::of(&ns.cluster)
            .away(async || {
                let mut newer = edited(&good, "port: 9000", "port: 9001")?;
                newer["http"][0]["sites"][0]["backends"] = json!([{"addresses": addresses}]);
                newer["http"][0]["later"] = json!(true);
                let next = names::config_key(crds::config::VERSION + 1);
                let patch = Patch::Merge(json!({"data": {
                    key.as_str(): serde_yaml::to_string(&newer)?,
                    next.as_str(): "nothing: [that, this, release, reads]",
                }}));
                maps.patch(&name, &PatchParams::default(), &patch).await?;
                // The listener has moved: the load finds nobody, and a client at the new port is answered.
                eventually(Duration::from_secs(10), "the edit is live", async || {
                    let before = load.report().await?.failed;
                    load.more(10).await?;
                    Ok((load.report().await?.failed > before).then_some(()))
                })
                .await
            })
            .await?;
        eventually(Duration::from_secs(20), "the operator's own configuration is back", async || {
            let before = load.report().await?.failed;
            let shares = load.more(20).await?;
            Ok((shares.len() == 2 && load.report().await?.failed == before).then_some(()))
        })
        .await?;
        let pod = ns.api::<Pod>().get("client").await?;
        ensure!(e2e::sidecar_restarts(&pod) == 0, "the sidecar was restarted");
        Ok(())
    })
    .await
}
