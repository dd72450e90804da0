//! Pods that were injected before the operator was upgraded.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::policy::{PodCounts, SidecarPolicy};
use e2e::{
    Load, Namespace, Operator, eventually,
    manifests::{backends, listener, policy, to_service},
    sidecar, sidecar_restarts, with_cluster_alone,
};
use serde_json::Value;

/// The image under its long name: for Kubernetes another image than the chart's default, for a node the same bits.
const OTHER_NAME: &str = "sidecarImage.registry=docker.io/library";

fn to(service: &str) -> Value {
    policy("web", &[listener("web", 9000, &[to_service(service)])])
}

async fn counts(ns: &Namespace, what: &str, expected: PodCounts) -> Result<()> {
    let policies = ns.api::<SidecarPolicy>();
    eventually(Duration::from_secs(20), what, async || {
        let counts = policies.get("web").await?.status.context("the policy has a status")?.pods;
        ensure!(counts == expected, "the counts are {counts:?}");
        Ok(Some(()))
    })
    .await
}

#[tokio::test]
async fn sidecars_of_the_previous_image_are_counted_outdated_and_still_get_edits() -> Result<()> {
    with_cluster_alone("previous", async |ns| {
        let operator = Operator::of(&ns.cluster);
        operator.install(&[OTHER_NAME]).await?;
        let outcome = async {
            ns.apply(&[backends("blue", 1, &[]), backends("green", 1, &[])].concat()).await?;
            ns.apply_policy(&to("blue")).await?;
            ns.rolled_out("blue").await?;
            ns.rolled_out("green").await?;
            Load::start(ns, "client", 9000).await
        }
        .await;
        operator.install(&[]).await?;
        let load = outcome?;
        let pod = ns.ready("client").await?;
        let image = sidecar(&pod)?.image.clone().unwrap_or_default();
        ensure!(image.starts_with("docker.io/library/"), "the pod has the image of before: {image}");
        counts(ns, "the pod is outdated", PodCounts { matched: 1, outdated: 1, ..PodCounts::default() })
            .await?;
        ns.apply(&[to("green")]).await?;
        eventually(Duration::from_secs(5), "the edit is live in the old sidecar", async || {
            let shares = load.more(10).await?;
            Ok(shares.keys().all(|pod| pod.starts_with("green")).then_some(()))
        })
        .await?;
        load.unharmed().await?;
        ensure!(sidecar_restarts(&ns.ready("client").await?) == 0, "the sidecar was restarted");
        // A restart of the pod brings it up to date.
        ns.kubectl(&["delete", "pod", "client", "--timeout=30s"], "").await?.accepted()?;
        Load::start(ns, "client", 9000).await?;
        counts(ns, "the pod is current", PodCounts { matched: 1, current: 1, ..PodCounts::default() }).await
    })
    .await
}
