//! Installed, upgraded, used, and gone: the last scenarios, since they leave no operator behind.

mod getting_started;

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Result, ensure};
use e2e::{
    Cluster, Load, Operator, eventually,
    manifests::{backends, listener, opted_in, pod, policy, to_service},
    with_cluster_alone,
};

/// Kinds that only speak of what was, or are made anew at any time by somebody else.
const RECORDS: &[&str] =
    &["events", "events.events.k8s.io", "componentstatuses", "pods.metrics.k8s.io", "nodes.metrics.k8s.io"];
/// What every namespace has, whoever made it.
const OF_ANY_NAMESPACE: &[&str] =
    &["ServiceAccount sidecar-system/default", "ConfigMap sidecar-system/kube-root-ca.crt"];

/// Every object of the cluster that has to do with the project, by its name, its namespace or its labels.
async fn traces(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let kinds = cluster.kubectl(&["api-resources", "--verbs=list", "-o", "name"], "").await?.accepted()?;
    let kinds: Vec<&str> = kinds.stdout.lines().filter(|kind| !RECORDS.contains(kind)).collect();
    let columns = r#"jsonpath={range .items[*]}{.kind}{" "}{.metadata.namespace}{"/"}{.metadata.name}{" "}{.metadata.labels}{"\n"}{end}"#;
    let objects = cluster
        .kubectl(&["get", &kinds.join(","), "--all-namespaces", "-o", columns], "")
        .await?
        .accepted()?;
    let ours = objects.stdout.lines().filter(|line| line.contains("sidecar")).filter_map(|line| {
        let mut words = line.split(' ');
        Some(format!("{} {}", words.next()?, words.next()?))
    });
    Ok(ours.filter(|object| !OF_ANY_NAMESPACE.contains(&object.as_str())).collect())
}

#[tokio::test]
async fn helm_installs_tests_and_upgrades_it_and_after_uninstall_nothing_is_left_but_the_crd() -> Result<()> {
    with_cluster_alone("uninstall", async |ns| {
        let operator = Operator::of(&ns.cluster);
        operator.uninstall().await?;
        operator.install(&[]).await?;
        let release = ["--namespace", Operator::NAMESPACE];
        ns.cluster
            .helm(&[&["test", Operator::NAME, "--timeout", "2m"], &release[..]].concat())
            .await?
            .accepted()?;

        ns.apply(&backends("web", 1, &[])).await?;
        ns.apply_policy(&policy("web", &[listener("web", 9000, &[to_service("web")])])).await?;
        ns.rolled_out("web").await?;
        let load = Load::start(ns, "client", 9000).await?;
        operator.install(&["replicas=1", "log.level=debug"]).await?;
        operator.install(&[]).await?;
        load.unharmed().await?;

        ns.kubectl(&["delete", "pods,deployments,services,sidecarpolicies", "--all", "--timeout=60s"], "")
            .await?
            .accepted()?;
        eventually(
            Duration::from_secs(60),
            "the operator has swept what it made for the policy",
            async || {
                let left = ns
                    .kubectl(
                        &["get", "configmaps,roles,rolebindings", "-l", "sidecar.io/policy", "-o", "name"],
                        "",
                    )
                    .await?;
                let left = left.accepted()?.stdout;
                ensure!(left.is_empty(), "left: {left}");
                Ok(Some(()))
            },
        )
        .await?;
        operator.uninstall().await?;
        let allowed = BTreeSet::from([
            "CustomResourceDefinition /sidecarpolicies.sidecar.io".to_owned(),
            "APIService /v1alpha1.sidecar.io".to_owned(),
            format!("Namespace /{}", Operator::NAMESPACE),
        ]);
        eventually(
            Duration::from_secs(60),
            "nothing is left but the CRD and the namespace that Helm made",
            async || {
                let left = traces(&ns.cluster).await?;
                ensure!(left == allowed, "left: {left:?}");
                Ok(Some(()))
            },
        )
        .await?;
        // Nobody is refused now that nobody injects.
        ns.apply(&[opted_in(pod("free", &["sleep"]))]).await?;
        ns.ready("free").await.map(drop)
    })
    .await
}
