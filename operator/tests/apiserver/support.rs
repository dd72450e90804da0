//! The replicas under test, and what the tests write and wait for.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use anyhow::Context;
use crds::policy::SidecarPolicy;
use e2e::{apiserver::ApiServer, eventually};
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Condition};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    discovery,
};
use operator::{
    controller::{self, Reconciler, Surroundings, World, lease::Candidate},
    inject::Settings,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) const NAMESPACE: &str = "sidecar-system";
pub(crate) const ACCOUNT: &str = "system:serviceaccount:sidecar-system:sidecar-operator";

/// Enough for a busy machine; every promise in seconds is asserted by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What users apply, from which the tests take the operator's rights.
const RELEASE: &str = include_str!("../../../deploy/sidecar-operator.yaml");

pub(crate) fn settings() -> Settings {
    Settings { sidecar_image: "sidecar:test".to_owned(), operator_namespace: NAMESPACE.to_owned() }
}

/// An API server on which two replicas of the controller run, and a client with all rights.
pub(crate) async fn controlled() -> anyhow::Result<(&'static ApiServer, Client)> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let server = ApiServer::shared().await;
    let started = tokio::task::spawn_blocking(move || {
        STARTED.get_or_init(|| start_replicas(server).map_err(|error| format!("{error:#}")))
    });
    started.await?.clone().map_err(anyhow::Error::msg)?;
    Ok((server, server.client().await?))
}

/// On a thread of their own, since a test's runtime ends with the test.
fn start_replicas(server: &'static ApiServer) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let rights = ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"];
        install(&server.client().await?, &rights).await?;
        let client = server.client_as(Some(ACCOUNT)).await?;
        for name in ["one", "two"] {
            start_replica(client.clone(), name);
        }
        anyhow::Ok(())
    })?;
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    Ok(())
}

fn start_replica(client: Client, name: &str) {
    let world = Arc::new(World::default());
    for watch in controller::watches(&client, &world) {
        tokio::spawn(watch);
    }
    let (lead, leading) = watch::channel(false);
    let candidate = Candidate {
        namespace: NAMESPACE.to_owned(),
        lease: "sidecar-operator".to_owned(),
        identity: name.to_owned(),
        owner: None,
    };
    let shutdown = CancellationToken::new();
    tokio::spawn(candidate.run(client.clone(), lead, shutdown.clone()));
    let surroundings = Surroundings { settings: settings(), endpoint_slices: true };
    let reconciler = Arc::new(Reconciler::new(client, world, surroundings, name.to_owned()));
    tokio::spawn(controller::run(reconciler, leading, shutdown));
}

/// Applies the objects of these kinds from the release, and the operator's namespace.
pub(crate) async fn install(client: &Client, kinds: &[&str]) -> anyhow::Result<()> {
    let namespace =
        serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    apply(client, serde_json::from_value(namespace)?).await?;
    for document in serde_yaml::Deserializer::from_str(RELEASE) {
        let Ok(object) = <DynamicObject as serde::Deserialize>::deserialize(document) else { continue };
        if object.types.as_ref().is_some_and(|types| kinds.contains(&types.kind.as_str())) {
            apply(client, object).await?;
        }
    }
    Ok(())
}

async fn apply(client: &Client, object: DynamicObject) -> anyhow::Result<()> {
    let types = object.types.clone().context("an object without a kind")?;
    let kind = kube::core::GroupVersionKind::try_from(&types)?;
    let (resource, capabilities) = discovery::pinned_kind(client, &kind).await?;
    let api: Api<DynamicObject> = match (&object.metadata.namespace, capabilities.scope) {
        (namespace, discovery::Scope::Namespaced) => {
            Api::namespaced_with(client.clone(), namespace.as_deref().unwrap_or(NAMESPACE), &resource)
        }
        _ => Api::all_with(client.clone(), &resource),
    };
    let name = object.metadata.name.clone().context("an object without a name")?;
    api.patch(&name, &PatchParams::apply("helm").force(), &Patch::Apply(&object)).await?;
    Ok(())
}

/// A policy with one listener; `backends` is the list in YAML.
pub(crate) fn policy(name: &str, backends: &str) -> anyhow::Result<SidecarPolicy> {
    let text = format!(
        "{{apiVersion: sidecar.io/v1alpha1, kind: SidecarPolicy, metadata: {{name: {name}}}, \
         spec: {{podSelector: {{matchLabels: {{policy: {name}}}}}, \
         http: [{{name: web, port: 8000, sites: [{{name: main, backends: {backends}}}]}}]}}}}"
    );
    Ok(serde_yaml::from_str(&text)?)
}

/// An opted-in pod that `policy` selects, with further annotations.
pub(crate) async fn pod(
    client: &Client,
    namespace: &str,
    name: &str,
    policy: &str,
    annotations: &[(&str, &str)],
) -> anyhow::Result<()> {
    let mut all: BTreeMap<&str, &str> = annotations.iter().copied().collect();
    all.insert("sidecar.io/inject", "true");
    let pod: Pod = serde_json::from_value(serde_json::json!({
        "metadata": {"name": name, "labels": {"policy": policy}, "annotations": all},
        "spec": {"containers": [{"name": "app", "image": "app"}]},
    }))?;
    create(client, namespace, &pod).await
}

pub(crate) async fn create<K>(client: &Client, namespace: &str, object: &K) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + serde::Serialize,
{
    Api::<K>::namespaced(client.clone(), namespace).create(&PostParams::default(), object).await?;
    Ok(())
}

pub(crate) async fn delete<K>(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    Api::<K>::namespaced(client.clone(), namespace)
        .delete(name, &DeleteParams::default().grace_period(0))
        .await?;
    Ok(())
}

/// A Service with one port of this name and number.
pub(crate) async fn service(
    client: &Client,
    namespace: &str,
    name: &str,
    port: (&str, u16),
) -> anyhow::Result<()> {
    let service = serde_json::from_value(serde_json::json!({
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"name": port.0, "port": port.1, "targetPort": 8080}]},
    }))?;
    create::<k8s_openapi::api::core::v1::Service>(client, namespace, &service).await
}

/// Waits until the object satisfies the condition.
pub(crate) async fn until<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    what: &str,
    condition: impl Fn(&K) -> bool,
) -> anyhow::Result<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let mut last = None;
    let found = eventually(PATIENCE, what, async || {
        last = api.get_opt(name).await?;
        Ok(last.clone().filter(|object| condition(object)))
    })
    .await;
    found.with_context(|| format!("last seen: {last:?}"))
}

/// Waits until the object is gone.
pub(crate) async fn until_gone<K>(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let what = format!("{namespace}/{name} is gone");
    eventually(PATIENCE, &what, async || Ok(api.get_opt(name).await?.is_none().then_some(()))).await
}

/// Waits until a condition of the policy has this status and reason, for the policy's present generation.
pub(crate) async fn until_condition(
    client: &Client,
    namespace: &str,
    name: &str,
    type_: &str,
    expected: (&str, &str),
) -> anyhow::Result<Condition> {
    let what = format!("{type_} of {namespace}/{name} is {expected:?}");
    let policy = until::<SidecarPolicy>(client, namespace, name, &what, |policy| {
        condition(policy, type_).is_some_and(|condition| {
            condition.observed_generation == policy.metadata.generation
                && (condition.status.as_str(), condition.reason.as_str()) == expected
        })
    })
    .await?;
    condition(&policy, type_).cloned().context("it was there")
}

pub(crate) fn condition<'a>(policy: &'a SidecarPolicy, type_: &str) -> Option<&'a Condition> {
    policy.status.as_ref()?.conditions.iter().find(|condition| condition.type_ == type_)
}
