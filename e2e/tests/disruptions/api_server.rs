//! Without an API server traffic goes on.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::names;
use e2e::{
    Load, Namespace, Operator, eventually,
    manifests::{backends, listener, policy, shell, to_service},
    sidecar_restarts, with_cluster_alone,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

const OUTAGE: Duration = Duration::from_secs(30);

/// A pod that sees the node's processes. Once the API server does not answer, it kills those of one container, once.
fn killer(container_id: &str, node: &str) -> Value {
    let script = format!(
        "while nc -w 2 $KUBERNETES_SERVICE_HOST $KUBERNETES_SERVICE_PORT </dev/null; do sleep 1; done; sleep 3; \
         for p in /proc/[0-9]*; do if grep -qs {container_id} $p/cgroup; then kill -9 ${{p#/proc/}} && echo killed; fi; done; \
         while :; do sleep 1; done"
    );
    let mut container = shell("app", &script);
    container["securityContext"] = json!({"runAsUser": 0});
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "killer"},
        "spec": {"hostPID": true, "nodeName": node, "terminationGracePeriodSeconds": 0, "containers": [container]},
    })
}

fn sidecar_id(pod: &Pod) -> Result<String> {
    let statuses =
        pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    let id = statuses
        .iter()
        .find(|status| status.name == names::CONTAINER)
        .and_then(|status| status.container_id.clone());
    let id = id.context("the sidecar has a container id")?;
    id.rsplit('/').next().map(str::to_owned).context("a container id has a scheme")
}

/// Stops the API server, waits, and starts it again whatever happened.
async fn without_api_server(ns: &Namespace) -> Result<()> {
    ns.cluster
        .control("stop-apiserver")
        .await
        .context("this scenario needs a cluster that e2e/cluster/up made")?;
    tokio::time::sleep(OUTAGE).await;
    ns.cluster.control("start-apiserver").await?;
    Operator::of(&ns.cluster).rolled_out().await
}

#[tokio::test]
async fn traffic_goes_on_without_an_api_server_and_a_sidecar_restarted_meanwhile_serves_the_last_good_set()
-> Result<()> {
    with_cluster_alone("outage", async |ns| {
        ns.apply(&backends("web", 3, &["--drain", "0s"])).await?;
        ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
        ns.rolled_out("web").await?;
        let steady = Load::start(ns, "steady", 9000).await?;
        let restarted = Load::start(ns, "restarted", 9000).await?;
        steady.unharmed().await?;
        let pod = ns.ready("restarted").await?;
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).context("the pod has a node")?;
        ns.apply(&[killer(&sidecar_id(&pod)?, &node)]).await?;
        ns.ready("killer").await?;
        let before = restarted.report().await?;

        without_api_server(ns).await?;

        let report = steady.unharmed().await?;
        ensure!(report.max_gap_ms < 2000, "requests went on all the time: {report:?}");
        ensure!(report.backends.len() == 3, "all backends answered: {report:?}");
        let what = "the kubelet tells of the sidecar's restart";
        eventually(Duration::from_secs(60), what, async || {
            Ok((sidecar_restarts(&ns.api::<Pod>().get("restarted").await?) == 1).then_some(()))
        })
        .await?;
        // Requests of the moments without a sidecar failed; none of those after its return, long before the API server's.
        let report = restarted.report().await?;
        ensure!(report.failed > before.failed, "the sidecar was away for a moment: {report:?}");
        ensure!(report.max_gap_ms < 10_000, "it served again without the API server: {report:?}");
        let shares = restarted.more(300).await?;
        ensure!(shares.len() == 3, "all backends answer: {shares:?}");
        Ok(())
    })
    .await
}
