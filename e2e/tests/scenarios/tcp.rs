//! Connections of an injected pod to the members of a headless Service.

use anyhow::{Result, ensure};
use e2e::{
    Load, Namespace,
    manifests::{REPORT_PORT, opted_in, pod, policy, stateful},
    with_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;

/// Members that are in the middle of some request at any time, and end as a good server does.
const DRAINING: &[&str] = &["--delay", "20ms", "--drain", "4s"];

async fn members(ns: &Namespace, replicas: usize) -> Result<Vec<Pod>> {
    ns.kubectl(&["rollout", "status", "statefulset/db", "--timeout=180s"], "").await?.accepted()?;
    let mut pods = ns.pods("app=db").await?;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
    ensure!(pods.len() == replicas, "{replicas} members, and not {}", pods.len());
    Ok(pods)
}

async fn scale(ns: &Namespace, replicas: usize) -> Result<()> {
    let replicas = format!("--replicas={replicas}");
    ns.kubectl(&["scale", "statefulset/db", &replicas], "").await?.accepted().map(drop)
}

#[tokio::test]
async fn no_connection_fails_while_a_stateful_set_is_scaled_and_rolled() -> Result<()> {
    with_namespace("stateful", async |ns| {
        ns.apply(&stateful("db", 2, DRAINING)).await?;
        let mut wanted = policy("db", &[]);
        wanted["spec"]["tcp"] =
            json!([{"name": "db", "port": 5432, "backends": [{"service": {"name": "db", "port": 80}}]}]);
        ns.apply_policy(&wanted).await?;
        members(ns, 2).await?;
        let report_port = REPORT_PORT.to_string();
        let arguments =
            [&Load::arguments("http://127.0.0.1:5432/", &report_port)[..], &["--reconnect"]].concat();
        ns.apply(&[opted_in(pod("client", &arguments))]).await?;
        let load = Load::of(ns, "client").await?;
        let shares = load.more(200).await?;
        ensure!(shares.len() == 2, "both members serve: {shares:?}");

        scale(ns, 4).await?;
        let before = members(ns, 4).await?;
        let shares = load.more(400).await?;
        ensure!(shares.len() == 4, "all four members serve: {shares:?}");

        ns.kubectl(&["rollout", "restart", "statefulset/db"], "").await?.accepted()?;
        let after = members(ns, 4).await?;
        ensure!(
            after.iter().all(|pod| before.iter().all(|old| old.uid() != pod.uid())),
            "all members are new"
        );
        let shares = load.more(400).await?;
        ensure!(shares.len() == 4, "all new members serve: {shares:?}");

        scale(ns, 1).await?;
        for gone in ["db-1", "db-2", "db-3"] {
            ns.gone(gone).await?;
        }
        let shares = load.more(200).await?;
        ensure!(shares.len() == 1, "the last member serves: {shares:?}");
        load.unharmed().await.map(drop)
    })
    .await
}
