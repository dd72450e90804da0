//! The webhook's certificates, with lives of seconds in the place of days.

use std::{collections::BTreeSet, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Cluster, Namespace, Operator, eventually, with_cluster_alone};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::Api;

use crate::stream;

/// Runs a part of a scenario with certificates that live for seconds. The operator is installed anew for it, since
/// certificates that there are keep the life they have; afterwards the next ones have their usual life again.
async fn with_short_lives(
    ns: &Namespace,
    ca: Duration,
    leaf: Duration,
    part: impl AsyncFnOnce(&Operator<'_>) -> Result<()>,
) -> Result<()> {
    let operator = Operator::of(&ns.cluster);
    let ca = format!("certificates.caValidity={}s", ca.as_secs());
    let leaf = format!("certificates.leafValidity={}s", leaf.as_secs());
    operator.uninstall().await?;
    let outcome = match operator.install(&[&ca, &leaf]).await {
        Ok(()) => part(&operator).await,
        Err(error) => Err(error),
    };
    operator.install(&[]).await?;
    outcome
}

async fn ca_bundle(cluster: &Cluster) -> Result<Vec<u8>> {
    let configurations: Api<MutatingWebhookConfiguration> = Api::all(cluster.client.clone());
    let webhooks = configurations.get(Operator::NAME).await?.webhooks.unwrap_or_default();
    let webhook = webhooks.into_iter().next().context("the configuration has a webhook")?;
    Ok(webhook.client_config.ca_bundle.context("it has a caBundle")?.0)
}

#[tokio::test]
async fn no_pod_is_refused_or_bare_while_certificates_rotate() -> Result<()> {
    with_cluster_alone("rotation", async |ns| {
        let (ca, leaf) = (Duration::from_secs(60), Duration::from_secs(20));
        ns.apply_policy(&stream::policy_for_stream()).await?;
        with_short_lives(ns, ca, leaf, async |_| {
            // One CA, then both, then the other alone; leaves are replaced in between.
            let rotated = async {
                let mut seen = BTreeSet::new();
                eventually(3 * ca, "the bundle was changed twice", async || {
                    seen.insert(ca_bundle(&ns.cluster).await?);
                    Ok((seen.len() > 2).then_some(()))
                })
                .await
            };
            stream::created_during(ns, 200, rotated).await
        })
        .await
    })
    .await
}

#[tokio::test]
async fn an_operator_that_slept_past_the_end_of_its_certificates_renews_them_and_admits() -> Result<()> {
    with_cluster_alone("expiry", async |ns| {
        let (ca, leaf) = (Duration::from_secs(24), Duration::from_secs(8));
        ns.apply_policy(&stream::policy_for_stream()).await?;
        with_short_lives(ns, ca, leaf, async |operator| {
            let before = ca_bundle(&ns.cluster).await?;
            // Back again, it is rolled out only once the API server trusts what it serves.
            operator
                .away(async || {
                    tokio::time::sleep(ca).await;
                    Ok(())
                })
                .await?;
            ensure!(ca_bundle(&ns.cluster).await? != before, "the CA was renewed");
            stream::created_during(ns, 20, async { Ok(()) }).await
        })
        .await
    })
    .await
}
