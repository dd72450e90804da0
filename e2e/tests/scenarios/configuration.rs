//! How configuration gets to the sidecars that run already.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use crds::names;
use e2e::{
    Load, eventually,
    manifests::{backends, listener, policy, to_service},
    sidecar_restarts, with_namespace,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

fn to(service: &str) -> Value {
    policy("web", &[listener("web", 9000, &[to_service(service)])])
}

#[tokio::test]
async fn an_edited_policy_is_live_in_every_pod_within_five_seconds_and_disturbs_nothing() -> Result<()> {
    with_namespace("edited", async |ns| {
        ns.apply(&[backends("blue", 2, &[]), backends("green", 2, &[])].concat()).await?;
        ns.apply_policy(&to("blue")).await?;
        ns.rolled_out("blue").await?;
        ns.rolled_out("green").await?;
        ns.apply(&[Load::manifest("one", 9000), Load::manifest("two", 9000), Load::manifest("three", 9000)])
            .await?;
        let mut loads = Vec::new();
        for pod in ["one", "two", "three"] {
            loads.push(Load::of(ns, pod).await?);
        }
        for color in ["green", "blue"] {
            ns.apply(&[to(color)]).await?;
            let edited = Instant::now();
            for load in &loads {
                eventually(Duration::from_secs(5), &format!("{} asks {color} alone", load.pod), async || {
                    let shares = load.more(10).await?;
                    Ok(shares.keys().all(|pod| pod.starts_with(color)).then_some(()))
                })
                .await?;
            }
            ensure!(
                edited.elapsed() < Duration::from_secs(5),
                "live in {:?}, not in five seconds",
                edited.elapsed()
            );
        }
        for load in &loads {
            load.unharmed().await?;
            let pod = ns.ready(&load.pod).await?;
            ensure!(sidecar_restarts(&pod) == 0, "the sidecar of {} was restarted", load.pod);
        }
        // The counts follow the condition within the time between two writes of the status.
        let policies = ns.api::<crds::policy::SidecarPolicy>();
        let counts = eventually(Duration::from_secs(15), "three pods are matched", async || {
            let status = policies.get("web").await?.status.context("the policy has a status")?;
            Ok((status.pods.matched == 3).then_some(status.pods))
        })
        .await?;
        ensure!((counts.current, counts.outdated, counts.missed) == (3, 0, 0), "all are current: {counts:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_config_map_broken_by_hand_is_repaired_in_seconds() -> Result<()> {
    with_namespace("broken", async |ns| {
        ns.apply(&backends("web", 2, &[])).await?;
        ns.apply_policy(&to("web")).await?;
        ns.rolled_out("web").await?;
        let load = Load::start(ns, "client", 9000).await?;
        let (maps, name) = (ns.api::<ConfigMap>(), names::policy_object("web"));
        let good = maps.get(&name).await?.data.context("the ConfigMap has data")?;
        let key = names::config_key(crds::config::VERSION);
        let repaired = async || {
            eventually(Duration::from_secs(5), "the ConfigMap is as it was", async || {
                Ok((maps.get(&name).await?.data.as_ref() == Some(&good)).then_some(()))
            })
            .await
        };
        let patch = Patch::Merge(json!({"data": {key: "http: [{name: web, port: none}]"}}));
        maps.patch(&name, &PatchParams::default(), &patch).await?;
        repaired().await?;
        maps.delete(&name, &Default::default()).await?;
        repaired().await?;
        load.unharmed().await.map(drop)
    })
    .await
}
