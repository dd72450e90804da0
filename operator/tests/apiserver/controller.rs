//! Policies become configuration, rights and status, and stay what they should be.

use std::time::Instant;

use anyhow::Context;
use crds::policy::SidecarPolicy;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Service},
    discovery::v1::EndpointSlice,
    events::v1::Event,
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use operator::inject::{Platform, shape};
use serde_json::json;

use super::support::*;

fn configuration(map: &ConfigMap) -> &str {
    map.data.as_ref().and_then(|data| data.get("sidecar.v1.yaml")).map_or("", String::as_str)
}

#[tokio::test]
async fn a_policy_becomes_configuration_rights_and_status() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("basic").await?;
    service(&client, &ns, "web", ("http", 80)).await?;
    create(&client, &ns, &policy("data", "[{service: {name: web, port: 80}}]")?).await?;
    let map: ConfigMap = until(&client, &ns, "sidecar-data", "configured", |map| {
        configuration(map).contains("portName: http")
    })
    .await?;
    assert!(configuration(&map).contains("generation: 1"), "{map:?}");
    until_condition(&client, &ns, "data", "Ready", ("True", "Applied")).await?;
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), &ns);
    assert!(bindings.get_opt("sidecar-data").await?.is_none(), "nobody to give rights to yet");

    let applied = Api::<SidecarPolicy>::namespaced(client.clone(), &ns).get("data").await?;
    let hash = shape::hash(&applied, &Default::default(), Platform { native_sidecars: true }, &settings())?;
    let injected = ("sidecar.io/injected-policy", "data");
    let account = ("sidecar.io/service-account", "runner");
    pod(&client, &ns, "current", "data", &[injected, account, ("sidecar.io/shape-hash", &hash)]).await?;
    pod(&client, &ns, "outdated", "data", &[injected, account, ("sidecar.io/shape-hash", "0")]).await?;
    pod(&client, &ns, "missed", "data", &[]).await?;
    pod(&client, &ns, "unmatched", "other", &[]).await?;
    until::<SidecarPolicy>(&client, &ns, "data", "pods are counted", |policy| {
        let pods = policy.status.as_ref().map(|status| status.pods).unwrap_or_default();
        (pods.matched, pods.current, pods.outdated, pods.missed) == (3, 1, 1, 1)
    })
    .await?;

    // The pods may read their ConfigMap and the slices of their namespace, and nothing more.
    until::<RoleBinding>(&client, &ns, "sidecar-data", "bound", |_| true).await?;
    let runner = server.client_as(Some(&format!("system:serviceaccount:{ns}:runner"))).await?;
    let what = "the rights are in force";
    let maps = Api::<ConfigMap>::namespaced(runner.clone(), &ns);
    e2e::eventually(PATIENCE, what, async || Ok(Some(maps.get("sidecar-data").await?))).await?;
    Api::<EndpointSlice>::namespaced(runner.clone(), &ns).list(&ListParams::default()).await?;
    assert!(maps.list(&ListParams::default()).await.is_err());
    assert!(Api::<Service>::namespaced(runner, &ns).list(&ListParams::default()).await.is_err());

    // Everything that happened since was no reason to write the ConfigMap again.
    let now = Api::<ConfigMap>::namespaced(client, &ns).get("sidecar-data").await?;
    assert_eq!(now.metadata.resource_version, map.metadata.resource_version);
    Ok(())
}

#[tokio::test]
async fn a_service_is_followed_when_it_comes_and_when_its_ports_change() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("later").await?;
    create(&client, &ns, &policy("data", "[{service: {name: web, port: 80}}]")?).await?;
    let condition =
        until_condition(&client, &ns, "data", "ResolvedRefs", ("False", "ServiceNotFound")).await?;
    assert!(condition.message.contains(&format!("Service {ns}/web does not exist")), "{condition:?}");
    until_condition(&client, &ns, "data", "Ready", ("False", "UnresolvedRefs")).await?;
    until::<ConfigMap>(&client, &ns, "sidecar-data", "it says why", |map| {
        configuration(map).contains("unresolved") && configuration(map).contains("does not exist")
    })
    .await?;

    service(&client, &ns, "web", ("first", 80)).await?;
    until::<ConfigMap>(&client, &ns, "sidecar-data", "resolved", |map| {
        configuration(map).contains("portName: first")
    })
    .await?;
    until_condition(&client, &ns, "data", "Ready", ("True", "Applied")).await?;

    let services = Api::<Service>::namespaced(client.clone(), &ns);
    let ports = |port: u16| json!([{"name": "second", "port": port, "targetPort": 8080}]);
    let patch = |port| {
        Patch::Json::<()>(
            serde_json::from_value(json!([{"op": "replace", "path": "/spec/ports", "value": ports(port)}]))
                .unwrap(),
        )
    };
    services.patch("web", &PatchParams::default(), &patch(80)).await?;
    until::<ConfigMap>(&client, &ns, "sidecar-data", "renamed", |map| {
        configuration(map).contains("portName: second")
    })
    .await?;
    services.patch("web", &PatchParams::default(), &patch(81)).await?;
    let condition = until_condition(&client, &ns, "data", "ResolvedRefs", ("False", "PortNotFound")).await?;
    assert!(condition.message.contains("81 (second)"), "{condition:?}");
    Ok(())
}

#[tokio::test]
async fn another_namespace_is_used_with_its_consent_and_only_as_long() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let (ns, storage) = (server.namespace("user").await?, server.namespace("storage").await?);
    service(&client, &storage, "minio", ("api", 9000)).await?;
    let backends = format!("[{{service: {{name: minio, namespace: {storage}, port: 9000}}}}]");
    create(&client, &ns, &policy("data", &backends)?).await?;
    pod(
        &client,
        &ns,
        "pod",
        "data",
        &[("sidecar.io/injected-policy", "data"), ("sidecar.io/service-account", "runner")],
    )
    .await?;
    let condition =
        until_condition(&client, &ns, "data", "ResolvedRefs", ("False", "RefNotPermitted")).await?;
    let remedy = format!("annotation sidecar.io/export-to of Namespace {storage}");
    assert!(condition.message.contains(&remedy), "{condition:?}");
    let exported = crds::names::exported_object(&ns, "data");
    assert!(Api::<Role>::namespaced(client.clone(), &storage).get_opt(&exported).await?.is_none());

    let namespaces = Api::<Namespace>::all(client.clone());
    let consent = |value: Option<&str>| {
        Patch::Merge(json!({"metadata": {"annotations": {"sidecar.io/export-to": value}}}))
    };
    namespaces.patch(&storage, &PatchParams::default(), &consent(Some(&ns))).await?;
    until_condition(&client, &ns, "data", "Ready", ("True", "Applied")).await?;
    let binding: RoleBinding = until(&client, &storage, &exported, "bound", |_| true).await?;
    let subject = binding.subjects.context("subjects")?.remove(0);
    assert_eq!((subject.name.as_str(), subject.namespace.as_deref()), ("runner", Some(ns.as_str())));
    until::<ConfigMap>(&client, &ns, "sidecar-data", "resolved", |map| {
        configuration(map).contains("portName: api")
    })
    .await?;

    namespaces.patch(&storage, &PatchParams::default(), &consent(None)).await?;
    until_gone::<RoleBinding>(&client, &storage, &exported).await?;
    until_gone::<Role>(&client, &storage, &exported).await?;
    until_condition(&client, &ns, "data", "ResolvedRefs", ("False", "RefNotPermitted")).await?;
    Ok(())
}

#[tokio::test]
async fn what_a_hand_breaks_is_repaired_in_seconds_and_told() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("broken").await?;
    create(&client, &ns, &policy("data", "[{addresses: ['10.0.0.1:80']}]")?).await?;
    until_condition(&client, &ns, "data", "Ready", ("True", "Applied")).await?;
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &ns);
    let good = configuration(&maps.get("sidecar-data").await?).to_owned();

    let labels = json!({"team": "data", "app.kubernetes.io/managed-by": null});
    let breakages = [
        json!({"data": {"sidecar.v1.yaml": "broken", "theirs": "kept"}}),
        json!({"data": {"sidecar.v1.yaml": null}}),
        json!({"metadata": {"labels": labels}}),
    ];
    for breakage in breakages {
        let began = Instant::now();
        maps.patch("sidecar-data", &PatchParams::default(), &Patch::Merge(&breakage)).await?;
        let map: ConfigMap = until(&client, &ns, "sidecar-data", "repaired", |map: &ConfigMap| {
            let managed =
                map.metadata.labels.as_ref().and_then(|labels| labels.get("app.kubernetes.io/managed-by"));
            configuration(map) == good && managed.is_some()
        })
        .await?;
        assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
        assert_eq!(map.data.context("data")?.get("theirs").map(String::as_str), Some("kept"));
    }
    delete::<ConfigMap>(&client, &ns, "sidecar-data").await?;
    until::<ConfigMap>(&client, &ns, "sidecar-data", "restored", |map| configuration(map) == good).await?;
    delete::<Role>(&client, &ns, "sidecar-data").await?;
    until::<Role>(&client, &ns, "sidecar-data", "restored", |_| true).await?;

    let events = Api::<Event>::namespaced(client, &ns);
    e2e::eventually(PATIENCE, "the repair is told", async || {
        let events = events.list(&ListParams::default()).await?;
        let told = events.items.iter().any(|event| event.reason.as_deref() == Some("Repaired"));
        // One replica leads, and only it writes.
        let mut writers: Vec<_> =
            events.items.iter().filter_map(|event| event.reporting_instance.clone()).collect();
        writers.dedup();
        anyhow::ensure!(writers.len() <= 1, "several replicas write: {writers:?}");
        Ok(told.then_some(()))
    })
    .await
}

#[tokio::test]
async fn a_users_object_of_the_same_name_is_left_alone() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("taken").await?;
    let theirs: ConfigMap =
        serde_json::from_value(json!({"metadata": {"name": "sidecar-data"}, "data": {"theirs": "kept"}}))?;
    create(&client, &ns, &theirs).await?;
    create(&client, &ns, &policy("data", "[{addresses: ['10.0.0.1:80']}]")?).await?;
    let condition = until_condition(&client, &ns, "data", "Ready", ("False", "NameTaken")).await?;
    assert!(condition.message.contains(&format!("ConfigMap {ns}/sidecar-data")), "{condition:?}");
    let map = Api::<ConfigMap>::namespaced(client.clone(), &ns).get("sidecar-data").await?;
    assert_eq!(configuration(&map), "");

    delete::<ConfigMap>(&client, &ns, "sidecar-data").await?;
    until_condition(&client, &ns, "data", "Ready", ("True", "Applied")).await?;
    Ok(())
}

#[tokio::test]
async fn status_is_written_at_most_once_in_five_seconds_and_ends_up_right() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("rate").await?;
    create(&client, &ns, &policy("data", "[{addresses: ['10.0.0.1:80']}]")?).await?;
    until_condition(&client, &ns, "data", "Ready", ("True", "Applied")).await?;
    let api = Api::<SidecarPolicy>::namespaced(client.clone(), &ns);
    let mut changes = watcher(api, watcher::Config::default()).applied_objects().boxed();
    let pods = tokio::spawn({
        let (client, ns) = (client.clone(), ns.clone());
        async move {
            for number in 0..20 {
                pod(&client, &ns, &format!("pod-{number}"), "data", &[]).await?;
            }
            anyhow::Ok(())
        }
    });
    let mut writes: Vec<Instant> = Vec::new();
    let mut before = None;
    let all = async {
        while let Some(policy) = changes.try_next().await? {
            let status = policy.status.unwrap_or_default();
            if before.as_ref().is_some_and(|before| *before != status) {
                writes.push(Instant::now());
            }
            let matched = status.pods.matched;
            before = Some(status);
            if matched == 20 {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("the watch ended")
    };
    tokio::time::timeout(PATIENCE, all).await.context("all pods are counted in the end")??;
    pods.await??;
    let gaps: Vec<_> = writes.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // What is measured is when the writes arrive here, which may be a little nearer to each other.
    assert!(gaps.iter().all(|gap| gap.as_millis() >= 4_000), "{gaps:?}");
    Ok(())
}

#[tokio::test]
async fn a_foreign_object_in_another_namespace_keeps_nothing_else_from_being_applied() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("own").await?;
    let exports = [("sidecar.io/export-to".to_owned(), ns.clone())].into();
    let storage = server.annotated_namespace("foreign", exports).await?;
    let exported = crds::names::exported_object(&ns, "data");
    let foreign: Role = serde_json::from_value(json!({"metadata": {"name": exported}}))?;
    create(&client, &storage, &foreign).await?;
    service(&client, &storage, "minio", ("api", 9000)).await?;
    pod(
        &client,
        &ns,
        "pod",
        "data",
        &[("sidecar.io/injected-policy", "data"), ("sidecar.io/service-account", "runner")],
    )
    .await?;
    let backends = format!("[{{service: {{name: minio, namespace: {storage}, port: 9000}}}}]");
    create(&client, &ns, &policy("data", &backends)?).await?;

    let condition = until_condition(&client, &ns, "data", "Ready", ("False", "NameTaken")).await?;
    assert!(condition.message.contains(&exported), "{condition:?}");
    until::<RoleBinding>(&client, &ns, "sidecar-data", "bound", |_| true).await?;
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), &storage);
    assert!(bindings.get_opt(&exported).await?.is_none(), "a foreign Role is granted to nobody");
    let kept = Api::<Role>::namespaced(client, &storage).get(&exported).await?;
    assert_eq!(kept.metadata.labels, None);
    Ok(())
}
