//! Pods created at a steady pace, none of which may be refused or start bare.

use std::{cell::Cell, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{
    Namespace,
    manifests::{listener, opted_in, pod, policy},
    sidecar,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

const PACE: Duration = Duration::from_millis(100);
/// More pods than the disturbance can take are a sign that it never ends.
const MOST: u32 = 2000;

/// A policy for pods that will never run.
pub(crate) fn policy_for_stream() -> Value {
    policy("stream", &[listener("web", 9000, &[json!({"addresses": ["10.9.0.1:9000"]})])])
}

/// Creates pods, at least so many, for as long as the disturbance takes; then looks at each of them.
pub(crate) async fn created_during(
    ns: &Namespace,
    least: u32,
    disturbance: impl Future<Output = Result<()>>,
) -> Result<()> {
    let over = Cell::new(false);
    let disturbed = async {
        let outcome = disturbance.await;
        over.set(true);
        outcome
    };
    let created = async {
        let mut manifest = opted_in(pod("stream", &["sleep"]));
        manifest["metadata"] =
            json!({"generateName": "stream-", "annotations": manifest["metadata"]["annotations"]});
        // A kubelet takes 110 pods; these are admitted and stored, and wait for a scheduler that there is not.
        manifest["spec"]["schedulerName"] = json!("none");
        let manifest: Pod = serde_json::from_value(manifest)?;
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut count = 0;
        while count < least || !over.get() {
            pace.tick().await;
            count += 1;
            ensure!(count <= MOST, "{MOST} pods, and the disturbance is not over");
            let created = ns.api::<Pod>().create(&PostParams::default(), &manifest).await;
            created.with_context(|| format!("pod number {count} was refused"))?;
        }
        Ok(count)
    };
    let (count, ()) = futures::future::try_join(created, disturbed).await?;
    let pods = ns.api::<Pod>().list(&ListParams::default()).await?.items;
    ensure!(pods.len() == count as usize, "{count} pods were created, and {} are there", pods.len());
    for pod in &pods {
        sidecar(pod).with_context(|| format!("pod {} is bare", pod.name_any()))?;
    }
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    ns.api::<Pod>().delete_collection(&now, &ListParams::default()).await?;
    Ok(())
}
