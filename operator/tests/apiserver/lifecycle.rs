//! The lease, and the whole operator from its start to its end, with the rights of the chart.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Parser;
use e2e::{apiserver::ApiServer, eventually};
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, apps::v1::Deployment, coordination::v1::Lease,
    core::v1::Secret,
};
use kube::Api;
use operator::{
    command::{Cli, Command, RunArgs},
    controller::lease::Candidate,
    run::{Clients, Sockets, operate},
    telemetry,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::sync::CancellationToken;

use super::support::*;

#[tokio::test]
async fn at_most_one_replica_leads_and_a_released_lease_is_taken_over() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("lease").await?;
    let leaders = Arc::new(Mutex::new(0));
    let start = |name: &str| {
        let (lead, leading) = watch::channel(false);
        let candidate = Candidate {
            namespace: ns.clone(),
            lease: "test".to_owned(),
            identity: name.to_owned(),
            owner: None,
        };
        let shutdown = CancellationToken::new();
        tokio::spawn(candidate.run(client.clone(), lead, shutdown.clone()));
        let (mut changes, leaders) = (leading.clone(), Arc::clone(&leaders));
        tokio::spawn(async move {
            let mut led = false;
            while changes.changed().await.is_ok() {
                let leads = *changes.borrow_and_update();
                if leads != led {
                    let mut leaders = leaders.lock().unwrap();
                    *leaders += if leads { 1 } else { -1 };
                    assert!(*leaders <= 1, "two replicas lead at once");
                    led = leads;
                }
            }
        });
        (leading, shutdown)
    };
    let (mut one, stop_one) = start("one");
    tokio::time::timeout(PATIENCE, one.wait_for(|leads| *leads)).await??;
    let (mut two, stop_two) = start("two");
    stop_one.cancel();
    tokio::time::timeout(PATIENCE, two.wait_for(|leads| *leads)).await??;
    assert!(*leaders.lock().unwrap() <= 1);
    stop_two.cancel();
    until::<Lease>(&client, &ns, "test", "released", |lease| {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()).is_none()
    })
    .await?;
    Ok(())
}

fn arguments() -> anyhow::Result<RunArgs> {
    let line =
        ["operator", "run", "--namespace", NAMESPACE, "--pod-name", "one", "--sidecar-image", "sidecar:test"];
    match Cli::try_parse_from(line)?.command {
        Command::Run(arguments) => Ok(*arguments),
        _ => anyhow::bail!("another command"),
    }
}

/// The status line of the answer.
async fn status(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    Ok(answer(address, path).await?.lines().next().unwrap_or_default().to_owned())
}

async fn answer(address: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").as_bytes())
        .await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The names of the families that a scrape shows.
fn families(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect()
}

#[tokio::test]
async fn the_operator_becomes_ready_with_the_charts_rights_and_ends_without_refusing_anyone()
-> anyhow::Result<()> {
    // Its own server: the release's objects and a controller of its own would be in the way of the others.
    let server = tokio::task::spawn_blocking(ApiServer::start).await??;
    let admin = server.client().await?;
    let all = [
        "ServiceAccount",
        "ClusterRole",
        "ClusterRoleBinding",
        "Role",
        "RoleBinding",
        "Service",
        "Deployment",
        "MutatingWebhookConfiguration",
    ];
    install(&admin, &all).await?;
    let client = server.client_as(Some(ACCOUNT)).await?;
    let clients = Clients { common: client.clone(), lease: client };
    let sockets = Sockets {
        webhook: TcpListener::bind("127.0.0.1:0").await?,
        admin: TcpListener::bind("127.0.0.1:0").await?,
    };
    let (webhook, health) = (sockets.webhook.local_addr()?, sockets.admin.local_addr()?);
    let shutdown = CancellationToken::new();
    let operator = tokio::spawn(operate(arguments()?, clients, sockets, shutdown.clone()));
    eventually(PATIENCE, "ready", async || {
        Ok((status(health, "/readyz").await? == "HTTP/1.1 200 OK").then_some(()))
    })
    .await?;
    assert_eq!(status(health, "/healthz").await?, "HTTP/1.1 200 OK");
    assert_eq!(status(health, "/metrics").await?, "HTTP/1.1 200 OK");
    let (page, groups) = (answer(health, "/metrics").await?, telemetry::groups());
    let listed = groups.iter().flat_map(|group| &group.metrics).map(|metric| metric.name);
    assert_eq!(families(&page), listed.collect(), "the reference has what a replica shows");

    let deployment = Api::<Deployment>::namespaced(admin.clone(), NAMESPACE).get("sidecar-operator").await?;
    let secret =
        Api::<Secret>::namespaced(admin.clone(), NAMESPACE).get("sidecar-operator-certificates").await?;
    let lease = Api::<Lease>::namespaced(admin.clone(), NAMESPACE).get("sidecar-operator").await?;
    for metadata in [&secret.metadata, &lease.metadata] {
        let owner =
            metadata.owner_references.as_ref().and_then(|owners| owners.first()).context("an owner")?;
        assert_eq!(Some(&owner.uid), deployment.metadata.uid.as_ref());
    }
    let configuration =
        Api::<MutatingWebhookConfiguration>::all(admin.clone()).get("sidecar-operator").await?;
    let mut webhooks = configuration.webhooks.iter().flatten();
    assert!(webhooks.all(|webhook| webhook.client_config.ca_bundle.is_some()));
    create(&admin, "default", &policy("data", "[{addresses: ['10.0.0.1:80']}]")?).await?;
    until_condition(&admin, "default", "data", "Ready", ("True", "Applied")).await?;

    shutdown.cancel();
    let began = Instant::now();
    eventually(PATIENCE, "not ready", async || {
        Ok(status(health, "/readyz").await?.contains("503").then_some(()))
    })
    .await?;
    until::<Lease>(&admin, NAMESPACE, "sidecar-operator", "released", |lease| {
        lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref()).is_none()
    })
    .await?;
    assert!(began.elapsed() < Duration::from_secs(5), "both at once: {:?}", began.elapsed());
    TcpStream::connect(webhook).await.context("the webhook goes on accepting")?;
    tokio::time::timeout(Duration::from_secs(25), operator).await.context("it ends in time")???;
    assert!(TcpStream::connect(webhook).await.is_err());
    Ok(())
}
