//! Where the requests of an injected pod go.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use e2e::{
    Load, Namespace, eventually,
    manifests::{
        BACKEND_PORT, REPORT_PORT, backends, container, deployment, listener, opted_in, pod_spec, policy,
        to_service,
    },
    sidecar, with_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;

/// Backends that are in the middle of some request at any time, and end like a killed process.
const CRASHING: &[&str] = &["--delay", "20ms", "--drain", "0s"];
/// Backends that are in the middle of some request at any time, and end as a good server does.
const DRAINING: &[&str] = &["--delay", "20ms", "--drain", "4s"];

/// Three backends named `web` behind the listener 9000.
async fn three_backends(ns: &Namespace, arguments: &[&str]) -> Result<Vec<Pod>> {
    ns.apply(&backends("web", 3, arguments)).await?;
    ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
    ns.rolled_out("web").await
}

#[tokio::test]
async fn an_annotated_deployment_gets_the_sidecar_and_reaches_three_backends_about_evenly() -> Result<()> {
    with_namespace("evenly", async |ns| {
        three_backends(ns, &[]).await?;
        let report_port = REPORT_PORT.to_string();
        let load = container("app", &Load::arguments("http://127.0.0.1:9000/", &report_port));
        ns.apply(&[opted_in(deployment("client", 1, pod_spec(&[load])))]).await?;
        let client = ns.rolled_out("client").await?;
        ensure!(client.len() == 1, "one client, and not {}", client.len());
        sidecar(&client[0])?;
        let load = Load::of(ns, &client[0].name_any()).await?;
        let shares = load.more(600).await?;
        let all: u64 = shares.values().sum();
        ensure!(shares.len() == 3, "three backends answer: {shares:?}");
        ensure!(
            shares.values().all(|share| (all / 4..=all * 5 / 12).contains(share)),
            "about a third each: {shares:?}"
        );
        load.unharmed().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_backend_pod_killed_under_load_fails_no_get() -> Result<()> {
    with_namespace("killed", async |ns| {
        let web = three_backends(ns, CRASHING).await?;
        let load = Load::start(ns, "client", 9000).await?;
        load.more(100).await?;
        // A crash: the process is gone in the middle of requests, and its endpoint stays for a while. The answer is lost too.
        let path =
            format!("/api/v1/namespaces/{}/pods/{}:{BACKEND_PORT}/proxy/crash", ns.name, web[0].name_any());
        ns.kubectl(&["create", "--raw", &path, "-f", "/dev/null"], "").await?.refused()?;
        load.more(100).await?;
        // A kill: no grace for the process, no notice for its clients.
        let kill = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        ns.api::<Pod>().delete(&web[1].name_any(), &kill).await?;
        load.more(200).await?;
        ns.rolled_out("web").await?;
        load.unharmed().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_backend_deployment_rolled_under_load_fails_no_get() -> Result<()> {
    with_namespace("rolled", async |ns| {
        let before = three_backends(ns, DRAINING).await?;
        let load = Load::start(ns, "client", 9000).await?;
        ns.kubectl(&["rollout", "restart", "deployment/web"], "").await?.accepted()?;
        let after = ns.rolled_out("web").await?;
        ensure!(
            after.iter().all(|pod| before.iter().all(|old| old.name_any() != pod.name_any())),
            "all pods are new"
        );
        for pod in &before {
            ns.gone(&pod.name_any()).await?;
        }
        let shares = load.more(200).await?;
        ensure!(
            after.iter().all(|pod| shares.contains_key(&pod.name_any())),
            "all new pods answer: {shares:?}"
        );
        load.unharmed().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn scaled_from_one_to_six_all_six_get_traffic_within_five_seconds() -> Result<()> {
    with_namespace("scaled", async |ns| {
        ns.apply(&backends("web", 1, &[])).await?;
        ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
        ns.rolled_out("web").await?;
        let load = Load::start(ns, "client", 9000).await?;
        scale(ns, "web", 6).await?;
        let web = ns.rolled_out("web").await?;
        let ready = Instant::now();
        let earlier = load.report().await?;
        eventually(Duration::from_secs(5), "all six backends answer", async || {
            let shares = load.report().await?.backends_since(&earlier);
            Ok(web.iter().all(|pod| shares.contains_key(&pod.name_any())).then_some(()))
        })
        .await?;
        ensure!(
            ready.elapsed() < Duration::from_secs(5),
            "within five seconds, and not {:?}",
            ready.elapsed()
        );
        load.unharmed().await.map(drop)
    })
    .await
}

#[tokio::test]
async fn a_service_port_is_reached_by_number_and_by_name() -> Result<()> {
    with_namespace("ports", async |ns| {
        ns.apply(&backends("web", 2, &[])).await?;
        let by_name = json!({"service": {"name": "web", "port": "web"}});
        let listeners = [listener("number", 9000, &[to_service("web")]), listener("name", 9001, &[by_name])];
        ns.apply_policy(&policy("web", &listeners)).await?;
        ns.rolled_out("web").await?;
        for (pod, port) in [("by-number", 9000), ("by-name", 9001)] {
            let report = Load::start(ns, pod, port).await?.unharmed().await?;
            ensure!(report.backends.len() == 2, "port 80 is the containers' 8080 {pod}: {report:?}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_first_site_with_a_live_backend_takes_all_traffic() -> Result<()> {
    with_namespace("failover", async |ns| {
        ns.apply(&[backends("primary", 1, DRAINING), backends("recovery", 1, DRAINING)].concat()).await?;
        let sites = json!([
            {"name": "primary", "backends": [to_service("primary")]},
            {"name": "recovery", "backends": [to_service("recovery")]},
        ]);
        ns.apply_policy(&policy("web", &[json!({"name": "web", "port": 9000, "sites": sites})])).await?;
        ns.rolled_out("primary").await?;
        ns.rolled_out("recovery").await?;
        let load = Load::start(ns, "client", 9000).await?;
        let takes_all = async |site: &str| {
            eventually(Duration::from_secs(30), &format!("{site} takes all traffic"), async || {
                let shares = load.more(20).await?;
                Ok(shares.keys().all(|pod| pod.starts_with(site)).then_some(()))
            })
            .await
        };
        takes_all("primary").await?;
        scale(ns, "primary", 0).await?;
        takes_all("recovery").await?;
        scale(ns, "primary", 1).await?;
        takes_all("primary").await?;
        load.unharmed().await.map(drop)
    })
    .await
}

async fn scale(ns: &Namespace, deployment: &str, replicas: u32) -> Result<()> {
    let deployments: Api<k8s_openapi::api::apps::v1::Deployment> = ns.api();
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments.patch_scale(deployment, &PatchParams::default(), &patch).await?;
    Ok(())
}
