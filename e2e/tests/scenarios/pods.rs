//! Pods of all kinds with the sidecar in them.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::{
    Load, Namespace, eventually,
    manifests::{
        annotated, backends, container, job, listener, opted_in, pod, policy, service, shell, to_service,
    },
    sidecar, with_namespace,
};
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::ResourceExt;
use serde_json::{Value, json};

const JOB: Duration = Duration::from_secs(90);

/// Two backends behind the listener 9000.
async fn web(ns: &Namespace) -> Result<()> {
    ns.apply(&backends("web", 2, &[])).await?;
    ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
    ns.rolled_out("web").await.map(drop)
}

#[tokio::test]
async fn a_job_with_the_sidecar_completes() -> Result<()> {
    with_namespace("job", async |ns| {
        web(ns).await?;
        ns.apply(&[opted_in(job("once", &["get", "http://127.0.0.1:9000/"]))]).await?;
        let jobs = ns.api::<Job>();
        eventually(JOB, "the Job is complete", async || {
            let status = jobs.get("once").await?.status.unwrap_or_default();
            ensure!(status.failed.unwrap_or(0) == 0, "its pod failed");
            let complete =
                status.conditions.into_iter().flatten().any(|c| c.type_ == "Complete" && c.status == "True");
            Ok(complete.then_some(()))
        })
        .await?;
        let pods = ns.pods("app=once").await?;
        let pod = pods.first().context("the Job has a pod")?;
        sidecar(pod)?;
        let said = ns.logs(&pod.name_any(), "app").await?;
        ensure!(said.starts_with("200 web-"), "a backend answered: {said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_pod_without_a_service_account_token_works_and_still_gets_none() -> Result<()> {
    with_namespace("tokenless", async |ns| {
        web(ns).await?;
        let mut client = Load::manifest("client", 9000);
        client["spec"]["automountServiceAccountToken"] = json!(false);
        ns.apply(&[client]).await?;
        Load::of(ns, "client").await?.unharmed().await?;
        let pod = ns.api::<Pod>().get("client").await?;
        sidecar(&pod)?;
        let app = &pod.spec.as_ref().context("a pod has a spec")?.containers[0];
        ensure!(app.volume_mounts.is_none(), "the application has no token: {:?}", app.volume_mounts);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_namespace_that_enforces_restricted_pod_security_takes_the_sidecar() -> Result<()> {
    with_namespace("security", async |ns| {
        let enforced = [
            ("pod-security.kubernetes.io/enforce", "restricted"),
            ("pod-security.kubernetes.io/warn", "restricted"),
        ];
        ns.with_another(&enforced, async |restricted| {
            web(restricted).await?;
            let warnings = restricted.apply(&[Load::manifest("client", 9000)]).await?;
            ensure!(!warnings.contains("PodSecurity"), "{warnings}");
            Load::of(restricted, "client").await?.unharmed().await.map(drop)
        })
        .await
    })
    .await
}

#[tokio::test]
async fn volumes_init_containers_and_probes_of_its_own_stay_as_they_are_and_work() -> Result<()> {
    with_namespace("own", async |ns| {
        web(ns).await?;
        let mount = json!([{"name": "data", "mountPath": "/data"}]);
        let mut fetch = shell("fetch", "wget -q -O /data/answer http://127.0.0.1:9000/");
        let mut check = shell("check", "grep -q ^web- /data/answer");
        let mut helper = container("helper", &["sleep"]);
        helper["restartPolicy"] = json!("Always");
        let mut app = container("app", &["serve", "--port", "8080"]);
        app["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1});
        app["livenessProbe"] = json!({"tcpSocket": {"port": 8080}});
        for container in [&mut fetch, &mut check, &mut app] {
            container["volumeMounts"] = mount.clone();
        }
        let mut own = pod("own", &[]);
        own["spec"]["volumes"] = json!([{"name": "data", "emptyDir": {}}]);
        own["spec"]["initContainers"] = json!([fetch, helper, check]);
        own["spec"]["containers"] = json!([app]);
        ns.apply(&[opted_in(own.clone())]).await?;
        // Ready proves the init containers: one reaches a backend through the sidecar, the next sees its answer.
        let pod = ns.ready("own").await?;
        sidecar(&pod)?;
        let got = serde_json::to_value(&pod)?;
        contains(&got["spec"]["containers"], &own["spec"]["containers"], "containers")?;
        contains(
            &json!(got["spec"]["initContainers"].as_array().map(|all| &all[1..])),
            &own["spec"]["initContainers"],
            "initContainers",
        )?;
        contains(&json!([got["spec"]["volumes"][0]]), &own["spec"]["volumes"], "volumes")
    })
    .await
}

/// Everything that was written is there, with the same value; lists have not grown.
fn contains(got: &Value, written: &Value, path: &str) -> Result<()> {
    match (got, written) {
        (Value::Object(got), Value::Object(written)) => written.iter().try_for_each(|(key, value)| {
            contains(got.get(key).unwrap_or(&Value::Null), value, &format!("{path}.{key}"))
        }),
        (Value::Array(got), Value::Array(written)) if path.ends_with("volumeMounts") => {
            // The API server's own admission adds the token's mount.
            ensure!(
                written.iter().all(|mount| got.iter().any(|other| contains(other, mount, path).is_ok())),
                "{path}: {got:?}"
            );
            Ok(())
        }
        (Value::Array(got), Value::Array(written)) => {
            ensure!(
                got.len() == written.len(),
                "{path} has {} entries, and not {}",
                got.len(),
                written.len()
            );
            got.iter()
                .zip(written)
                .enumerate()
                .try_for_each(|(at, (got, written))| contains(got, written, &format!("{path}[{at}]")))
        }
        _ => {
            ensure!(got == written, "{path} is {got}, and not {written}");
            Ok(())
        }
    }
}

#[tokio::test]
async fn sidecar_top_tells_scripts_of_the_traffic_of_a_pod() -> Result<()> {
    with_namespace("top", async |ns| {
        web(ns).await?;
        Load::start(ns, "client", 9000).await?.more(50).await?;
        let top = ["exec", "client", "-c", "sidecar", "--", "sidecar", "top", "--once", "-o", "json"];
        let said = ns.kubectl(&top, "").await?.accepted()?.stdout;
        let report: Value = serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
        let listener = &report["listeners"][0];
        ensure!(listener["name"] == "web", "the listener of the policy: {said}");
        ensure!(listener["requests"]["total"].as_u64() >= Some(50), "with its requests: {said}");
        let backends = listener["sites"][0]["backends"].as_array().map_or(0, Vec::len);
        ensure!(backends == 2, "and its two backends: {said}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn kubectl_delete_pod_works_with_requests_in_flight() -> Result<()> {
    with_namespace("delete", async |ns| {
        web(ns).await?;
        Load::start(ns, "client", 9000).await?.more(50).await?;
        ns.kubectl(&["delete", "pod", "client", "--timeout=30s"], "").await?.accepted()?;
        ns.gone("client").await
    })
    .await
}

#[tokio::test]
async fn an_ordinary_container_serves_where_native_sidecars_are_not_wanted() -> Result<()> {
    with_namespace("ordinary", async |ns| {
        web(ns).await?;
        ns.apply(&[annotated(Load::manifest("client", 9000), "sidecar.io/mode", "Container")]).await?;
        let load = Load::of(ns, "client").await?;
        let pod = ns.api::<Pod>().get("client").await?;
        let spec = pod.spec.context("a pod has a spec")?;
        ensure!(spec.init_containers.is_none(), "no init container");
        ensure!(spec.containers.len() == 2, "the application and the sidecar");
        let shares = load.more(200).await?;
        ensure!(shares.len() == 2, "both backends answer: {shares:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_inbound_listener_serves_other_pods_on_behalf_of_the_application() -> Result<()> {
    with_namespace("inbound", async |ns| {
        let mut inbound = listener("inbound", 9080, &[json!({"addresses": ["127.0.0.1:8080"]})]);
        inbound["address"] = json!("0.0.0.0");
        ns.apply_policy(&policy("web", &[inbound])).await?;
        let mut front = service("front");
        front["spec"]["ports"] = json!([{"port": 80, "targetPort": 9080}]);
        ns.apply(&[front, opted_in(pod("front", &["serve", "--port", "8080"]))]).await?;
        ns.ready("front").await?;
        let mut ask = job("ask", &["get", "http://front/"]);
        // The Service's new address reaches the node a moment after the pod is ready.
        ask["spec"]["backoffLimit"] = json!(4);
        ns.apply(&[ask]).await?;
        let jobs = ns.api::<Job>();
        eventually(JOB, "a pod without a sidecar is answered", async || {
            Ok(jobs.get("ask").await?.status.and_then(|status| status.succeeded).filter(|count| *count == 1))
        })
        .await
        .map(drop)
    })
    .await
}
