//! A namespace for each scenario, so that they can run beside each other, and what scenarios do in it.

use std::{
    collections::BTreeMap,
    env,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use crds::policy::{SidecarPolicy, conditions};
use http_body_util::BodyExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        apps::v1::Deployment,
        core::v1::{self, Pod},
    },
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams},
    client::Body,
};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{Cluster, Operator, Output, diagnosis, eventually};

/// Scenarios at a time: more of them only wait for the cores.
const SLOTS: u32 = 4;
static SLOT: Semaphore = Semaphore::const_new(SLOTS as usize);

/// How long images, schedulers and kubelets may take for a few pods on a busy machine.
pub(crate) const PODS: Duration = Duration::from_secs(90);

/// A namespace and the cluster it is in.
pub struct Namespace {
    pub cluster: Cluster,
    pub name: String,
}

/// Runs a scenario in a namespace of its own, with the operator installed. E2E_KEEP=1 keeps the namespace of a failure.
pub async fn with_namespace(test: &str, scenario: impl AsyncFnOnce(&Namespace) -> Result<()>) -> Result<()> {
    scenario_in(test, SLOT.acquire().await?, scenario).await
}

/// The same with no other scenario running: for what disturbs the whole cluster.
pub async fn with_cluster_alone(
    test: &str,
    scenario: impl AsyncFnOnce(&Namespace) -> Result<()>,
) -> Result<()> {
    scenario_in(test, SLOT.acquire_many(SLOTS).await?, scenario).await
}

async fn scenario_in(
    test: &str,
    _slot: SemaphorePermit<'_>,
    scenario: impl AsyncFnOnce(&Namespace) -> Result<()>,
) -> Result<()> {
    let cluster = Cluster::connect().await?;
    Operator::of(&cluster).ensure_installed().await?;
    Namespace::with(cluster, test, BTreeMap::new(), scenario).await
}

impl Namespace {
    async fn with(
        cluster: Cluster,
        test: &str,
        labels: BTreeMap<String, String>,
        scenario: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let name = format!("e2e-{test}-{}", suffix());
        let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let namespace = Self { cluster, name };
        let all = Api::<v1::Namespace>::all(namespace.cluster.client.clone());
        all.create(&PostParams::default(), &v1::Namespace { metadata, ..v1::Namespace::default() }).await?;
        // The account that every pod runs as is made after the namespace.
        let accounts = namespace.api::<v1::ServiceAccount>();
        // After an outage of the API server, controllers come back from a back-off of up to a minute.
        eventually(Duration::from_secs(120), "the namespace has its default ServiceAccount", async || {
            Ok(accounts.get_opt("default").await?)
        })
        .await?;
        let mut outcome = scenario(&namespace).await;
        if let Err(error) = outcome {
            outcome = Err(error.context(diagnosis::of(&namespace).await));
            if env::var_os("E2E_KEEP").is_some() {
                return outcome;
            }
        }
        // Deletion goes on behind the next scenario, unless the scenario itself has deleted it.
        match all.delete(&namespace.name, &DeleteParams::background()).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => outcome,
            deleted => outcome.and(deleted.map(drop).context("cannot delete the namespace")),
        }
    }

    /// Runs a part of the scenario with one more namespace.
    pub async fn with_another(
        &self,
        labels: &[(&str, &str)],
        scenario: impl AsyncFnOnce(&Self) -> Result<()>,
    ) -> Result<()> {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Box::pin(Self::with(self.cluster.clone(), "other", labels, scenario)).await
    }

    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.cluster.client.clone(), &self.name)
    }

    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        self.cluster.kubectl(&[&["-n", &self.name], arguments].concat(), input).await
    }

    /// `kubectl apply` of all objects in one call, which may be refused.
    pub async fn try_apply(&self, objects: &[Value]) -> Result<Output> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.kubectl(&["apply", "-f", "-"], &list.to_string()).await
    }

    /// `kubectl apply` that must be accepted; gives the warnings.
    pub async fn apply(&self, objects: &[Value]) -> Result<String> {
        Ok(self.try_apply(objects).await?.accepted()?.stderr)
    }

    /// Applies a policy and waits until it is Ready.
    pub async fn apply_policy(&self, policy: &Value) -> Result<SidecarPolicy> {
        self.apply(std::slice::from_ref(policy)).await?;
        let name = policy["metadata"]["name"].as_str().context("a policy has a name")?;
        self.condition(name, conditions::READY, "True").await.map(|(policy, _)| policy)
    }

    /// Waits until a condition of the policy's present generation has this status; gives the condition's message too.
    pub async fn condition(&self, policy: &str, kind: &str, status: &str) -> Result<(SidecarPolicy, String)> {
        let policies = self.api::<SidecarPolicy>();
        let what = format!("policy {policy} has condition {kind}={status}");
        eventually(Duration::from_secs(30), &what, async || {
            let policy = policies.get(policy).await?;
            let conditions =
                policy.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            let found = conditions.into_iter().find(|condition| {
                condition.type_ == kind
                    && condition.status == status
                    && condition.observed_generation == policy.metadata.generation
            });
            Ok(found.map(|condition| (policy, condition.message)))
        })
        .await
    }

    /// The pods that a label selector matches.
    pub async fn pods(&self, selector: &str) -> Result<Vec<Pod>> {
        Ok(self.api::<Pod>().list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Waits until every pod of a Deployment is of its present template and ready; gives the pods.
    pub async fn rolled_out(&self, deployment: &str) -> Result<Vec<Pod>> {
        let deployments = self.api::<Deployment>();
        eventually(PODS, &format!("Deployment {deployment} is rolled out"), async || {
            Ok(is_rolled_out(&deployments.get(deployment).await?).then_some(()))
        })
        .await?;
        let mut pods = self.pods(&format!("app={deployment}")).await?;
        pods.retain(|pod| pod.metadata.deletion_timestamp.is_none());
        Ok(pods)
    }

    pub async fn ready(&self, pod: &str) -> Result<Pod> {
        self.pod_when(pod, "is ready", |pod| has_condition(pod, "Ready")).await
    }

    pub async fn pod_when(&self, pod: &str, what: &str, condition: impl Fn(&Pod) -> bool) -> Result<Pod> {
        let pods = self.api::<Pod>();
        eventually(PODS, &format!("pod {pod} {what}"), async || {
            Ok(Some(pods.get(pod).await?).filter(|pod| condition(pod)))
        })
        .await
    }

    pub async fn gone(&self, pod: &str) -> Result<()> {
        let pods = self.api::<Pod>();
        eventually(PODS, &format!("pod {pod} is gone"), async || {
            Ok(pods.get_opt(pod).await?.is_none().then_some(()))
        })
        .await
    }

    /// A GET to a port of a pod, through the API server.
    pub async fn http_get(&self, pod: &str, port: u16, path: &str) -> Result<(u16, String)> {
        self.ask(&self.cluster.client, pod, port, path).await
    }

    /// The same where nothing is expected to answer: a 503 of the API server is not asked for again.
    pub async fn is_unreachable(&self, pod: &str, port: u16) -> Result<bool> {
        Ok(self.ask(&self.cluster.impatient, pod, port, "/").await?.0 >= 500)
    }

    async fn ask(&self, client: &Client, pod: &str, port: u16, path: &str) -> Result<(u16, String)> {
        let url = format!("/api/v1/namespaces/{}/pods/{pod}:{port}/proxy{path}", self.name);
        let request = http::Request::get(url).body(Body::empty())?;
        let response = client.send(request).await?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// What the webhooks recorded about the creation of a pod, from the audit log of our own API server.
    pub async fn audit_annotations(&self, pod: &str) -> Result<BTreeMap<String, String>> {
        eventually(Duration::from_secs(15), &format!("the audit log speaks of pod {pod}"), async || {
            let log = self.cluster.audit_log().await?;
            let events = log.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut of_pod = events.filter(|event| {
                let object = &event["objectRef"];
                object["namespace"] == self.name.as_str() && object["name"] == pod
            });
            let event = of_pod.next();
            Ok(event.map(|mut event| serde_json::from_value(event["annotations"].take()).unwrap_or_default()))
        })
        .await
    }

    pub async fn logs(&self, pod: &str, container: &str) -> Result<String> {
        let parameters = LogParams { container: Some(container.to_owned()), ..LogParams::default() };
        Ok(self.api::<Pod>().logs(pod, &parameters).await?)
    }
}

pub(crate) fn is_rolled_out(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    deployment.status.as_ref().is_some_and(|status| {
        let all = |count: Option<i32>| count.unwrap_or(0) == wanted;
        status.observed_generation >= deployment.metadata.generation
            && all(status.replicas)
            && all(status.updated_replicas)
            && all(status.ready_replicas)
    })
}

pub fn has_condition(pod: &Pod, kind: &str) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

/// Different for namespaces made one after the other, and by another run.
fn suffix() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("{:x}", now.as_millis() & 0xffff_ffff)
}
