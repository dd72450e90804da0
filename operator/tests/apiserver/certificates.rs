//! First install, repair and rotation of the certificates, with replicas that serve them over TLS.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use axum::Router;
use e2e::eventually;
use k8s_openapi::api::{
    admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret, discovery::v1::EndpointSlice,
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use operator::{
    certificates::{Manager, Names, Serving, Validities, Watched},
    webhook,
};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::support::*;

const WEBHOOKS: [&str; 2] = ["inject.sidecar.io", "other.sidecar.io"];

/// A configuration as Helm would apply it: everything but the caBundle.
fn release(name: &str) -> Value {
    let webhooks: Vec<Value> = WEBHOOKS
        .iter()
        .map(|webhook| {
            json!({
                "name": webhook,
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "failurePolicy": "Fail",
                "timeoutSeconds": 5,
                "clientConfig": {"service": {"name": "webhook", "namespace": NAMESPACE, "path": "/inject"}},
                // Of no kind that a test creates.
                "rules": [{"apiGroups": ["example.com"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["nothings"]}],
            })
        })
        .collect();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": name},
        "webhooks": webhooks,
    })
}

async fn helm_applies(client: &Client, name: &str) -> anyhow::Result<()> {
    // Without force: a conflict with the operator would be an error.
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    api.patch(name, &PatchParams::apply("helm"), &Patch::Apply(release(name))).await?;
    Ok(())
}

fn names(namespace: &str) -> Names {
    Names {
        namespace: namespace.to_owned(),
        secret: "certificates".to_owned(),
        service: "webhook".to_owned(),
        configuration: namespace.to_owned(),
    }
}

/// A replica: it watches, serves, and writes where it leads. Dropped to stop.
struct Replica {
    _tasks: JoinSet<()>,
    address: SocketAddr,
    watched: Arc<Watched>,
}

impl Replica {
    async fn start(
        client: &Client,
        names: &Names,
        validities: Validities,
        leads: bool,
    ) -> anyhow::Result<Self> {
        let (serving, watched) = (Arc::new(Serving::new()?), Arc::new(Watched::default()));
        let listener = TcpListener::bind((own_address()?, 0)).await?;
        let address = listener.local_addr()?;
        let mut tasks = JoinSet::new();
        let (client_, names_, watched_, serving_) =
            (client.clone(), names.clone(), Arc::clone(&watched), Arc::clone(&serving));
        tasks.spawn(async move { watched_.follow_secret(client_, &names_, &serving_).await });
        let (client_, names_, watched_) = (client.clone(), names.clone(), Arc::clone(&watched));
        tasks.spawn(async move { watched_.follow_configuration(client_, &names_).await });
        let manager = Manager::new(client.clone(), names.clone(), validities, None, serving.leaf());
        let watched_ = Arc::clone(&watched);
        tasks.spawn(async move {
            let (_lead, leading) = watch::channel(leads);
            manager.run(leading, &watched_).await;
        });
        let tls = serving.tls();
        tasks.spawn(async move {
            let end = CancellationToken::new();
            let _ = webhook::serve(listener, tls, Router::new(), end, Duration::ZERO).await;
        });
        Ok(Self { _tasks: tasks, address, watched })
    }
}

/// An address that an EndpointSlice may hold, which loopback addresses may not. Nothing is sent.
fn own_address() -> anyhow::Result<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.connect("192.0.2.1:9").context("this machine has no address but loopback")?;
    Ok(socket.local_addr()?.ip())
}

async fn publish_endpoint(
    client: &Client,
    namespace: &str,
    name: &str,
    address: SocketAddr,
) -> anyhow::Result<()> {
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "webhook"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address.ip()], "conditions": {"ready": true, "serving": true}}],
        "ports": [{"name": "webhook", "port": address.port(), "protocol": "TCP"}],
    }))?;
    create(client, namespace, &slice).await
}

async fn bundles(client: &Client, name: &str) -> anyhow::Result<Vec<String>> {
    let configuration = Api::<MutatingWebhookConfiguration>::all(client.clone()).get(name).await?;
    let webhooks = configuration.webhooks.unwrap_or_default();
    let bundle = |webhook: k8s_openapi::api::admissionregistration::v1::MutatingWebhook| {
        let bytes = webhook.client_config.ca_bundle.map(|bundle| bundle.0).unwrap_or_default();
        String::from_utf8(bytes).unwrap_or_default()
    };
    Ok(webhooks.into_iter().map(bundle).collect())
}

/// Connects as an API server would that trusts the bundle.
async fn is_trusted(
    bundle: &str,
    namespace: &str,
    address: SocketAddr,
) -> anyhow::Result<CertificateDer<'static>> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        roots.add(authority?)?;
    }
    let config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from(format!("webhook.{namespace}.svc"))?;
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config)).connect(name, stream).await?;
    let chain = stream.get_ref().1.peer_certificates().context("no certificate")?;
    Ok(chain[0].clone().into_owned())
}

async fn until_published(client: &Client, name: &str) -> anyhow::Result<String> {
    eventually(PATIENCE, "the caBundle is published in every webhook", async || {
        let bundles = bundles(client, name).await?;
        Ok((bundles.len() == 2 && !bundles[0].is_empty() && bundles[0] == bundles[1])
            .then(|| bundles[0].clone()))
    })
    .await
}

fn year() -> Validities {
    Validities { authority: 365 * 86_400, leaf: 7 * 86_400 }
}

#[tokio::test]
async fn a_first_install_serves_and_is_trusted_and_helm_keeps_its_fields() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("install").await?;
    let names = names(&ns);
    // The configuration comes later, as it may with Helm.
    let replica = Replica::start(&client, &names, year(), true).await?;
    until::<Secret>(&client, &ns, "certificates", "created", |_| true).await?;
    helm_applies(&client, &ns).await?;
    let bundle = until_published(&client, &ns).await?;
    is_trusted(&bundle, &ns, replica.address).await?;
    tokio::time::timeout(PATIENCE, replica.watched.trusted()).await?;

    helm_applies(&client, &ns).await?;
    let configuration = Api::<MutatingWebhookConfiguration>::all(client.clone()).get(&ns).await?;
    let webhooks = configuration.webhooks.context("webhooks")?;
    assert!(webhooks.iter().all(|webhook| webhook.failure_policy.as_deref() == Some("Fail")));
    assert_eq!(
        bundles(&client, &ns).await?,
        [bundle.clone(), bundle.clone()],
        "Helm's upgrade leaves the caBundle"
    );
    let owners = |manager: &str| {
        let entry = configuration.metadata.managed_fields.iter().flatten();
        let fields = entry.filter(|entry| entry.manager.as_deref() == Some(manager));
        fields.map(|entry| serde_json::to_string(&entry.fields_v1).unwrap()).collect::<String>()
    };
    assert!(owners("helm").contains("failurePolicy") && !owners("helm").contains("caBundle"));
    let ours = owners("sidecar-operator-certificates");
    assert!(
        ours.contains("caBundle") && !ours.contains("failurePolicy") && !ours.contains("rules"),
        "{ours}"
    );

    let empty = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let api = Api::<MutatingWebhookConfiguration>::all(client.clone());
    api.patch(&ns, &PatchParams::default(), &Patch::Json::<()>(serde_json::from_value(empty)?)).await?;
    assert_eq!(until_published(&client, &ns).await?, bundle, "a caBundle emptied by hand is repaired");

    delete::<Secret>(&client, &ns, "certificates").await?;
    eventually(PATIENCE, "a deleted Secret is made anew, served and trusted", async || {
        let anew = until_published(&client, &ns).await?;
        is_trusted(&anew, &ns, replica.address).await?;
        Ok((anew != bundle).then_some(()))
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn whatever_is_served_is_trusted_throughout_a_rotation() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("rotation").await?;
    let names = names(&ns);
    helm_applies(&client, &ns).await?;
    let validities = Validities::new(Duration::from_secs(30), Duration::from_secs(10))?;
    let replicas = [
        Replica::start(&client, &names, validities, true).await?,
        Replica::start(&client, &names, validities, false).await?,
    ];
    for (name, replica) in ["one", "two"].iter().zip(&replicas) {
        publish_endpoint(&client, &ns, name, replica.address).await?;
    }
    let first = until_published(&client, &ns).await?;
    for replica in &replicas {
        eventually(PATIENCE, "it serves", async || Ok(Some(is_trusted(&first, &ns, replica.address).await?)))
            .await?;
    }
    let mut leaves = std::collections::HashSet::new();
    let rotation = async {
        loop {
            let bundle = until_published(&client, &ns).await?;
            for replica in &replicas {
                leaves.insert(
                    is_trusted(&bundle, &ns, replica.address).await.context("served and not trusted")?,
                );
            }
            if !bundle.contains(&first) {
                return anyhow::Ok(());
            }
        }
    };
    tokio::time::timeout(PATIENCE, rotation).await.context("the first CA is dropped in the end")??;
    assert!(leaves.len() >= 3, "leaves were renewed before and after the CA: {}", leaves.len());
    Ok(())
}
