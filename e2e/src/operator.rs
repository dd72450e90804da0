//! The operator as its users handle it: by Helm, from the chart of this repository, with the images of `make image`.

use std::{env, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret},
};
use kube::{
    Api,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::{Cluster, cluster, eventually, manifests, namespace::is_rolled_out};

pub(crate) const NAMESPACE: &str = "sidecar-system";
pub(crate) const SELECTOR: &str = "app.kubernetes.io/name=sidecar-operator";
const NAME: &str = "sidecar-operator";
const REPLICAS: i32 = 2;
const ROLL_OUT: Duration = Duration::from_secs(120);

/// Set by the first scenario of a test program; the others find the operator there.
static INSTALLED: OnceCell<()> = OnceCell::const_new();

pub struct Operator<'a> {
    cluster: &'a Cluster,
}

impl<'a> Operator<'a> {
    pub const NAMESPACE: &'static str = NAMESPACE;
    pub const NAME: &'static str = NAME;

    pub fn of(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    /// Installs it, or brings what is installed to the chart's defaults, once in a test program.
    pub async fn ensure_installed(&self) -> Result<()> {
        INSTALLED.get_or_try_init(async || self.install(&[]).await).await.copied()
    }

    /// `helm upgrade --install` with these values (`key=value`), and nothing kept of earlier ones; waits until it answers.
    pub async fn install(&self, values: &[&str]) -> Result<()> {
        let chart = cluster::root().join("charts/sidecar-operator");
        let chart = chart.to_str().context("the path of this repository is not UTF-8")?;
        let build = format!("podAnnotations.e2e-build={}", build());
        let mut arguments = vec![
            "upgrade",
            "--install",
            NAME,
            chart,
            "--namespace",
            NAMESPACE,
            "--create-namespace",
            "--wait",
            "--timeout",
            // A scenario may have scaled the Deployment, which makes kubectl the owner of its replicas.
            "3m",
            "--force-conflicts",
            "--set-string",
            &build,
        ];
        for value in values {
            arguments.extend(["--set", value]);
        }
        let file = env::var("E2E_HELM_VALUES").ok();
        if let Some(file) = &file {
            arguments.extend(["--values", file]);
        }
        self.cluster.helm(&arguments).await?.accepted()?;
        self.rolled_out().await
    }

    /// `helm uninstall`; waits until what belongs to the Deployment has gone with it.
    pub async fn uninstall(&self) -> Result<()> {
        let arguments =
            ["uninstall", NAME, "--namespace", NAMESPACE, "--wait", "--timeout", "2m", "--ignore-not-found"];
        self.cluster.helm(&arguments).await?.accepted()?;
        let secrets: Api<Secret> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        eventually(ROLL_OUT, "the certificates are gone", async || {
            Ok(secrets.get_opt(&format!("{NAME}-certificates")).await?.is_none().then_some(()))
        })
        .await
    }

    /// Replaces all pods of the operator, one after the other, and waits for the last.
    pub async fn restart(&self) -> Result<()> {
        self.deployments().restart(NAME).await?;
        self.rolled_out().await
    }

    /// Runs a part of a scenario while no operator runs, and brings it back whatever came of it.
    pub async fn away(&self, part: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
        self.scale(0).await?;
        let outcome = match self.no_pods().await {
            Ok(()) => part().await,
            Err(error) => Err(error),
        };
        self.scale(REPLICAS).await?;
        self.rolled_out().await?;
        outcome
    }

    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let pods = Api::<Pod>::namespaced(self.cluster.client.clone(), NAMESPACE);
        Ok(pods.list(&ListParams::default().labels(SELECTOR)).await?.items)
    }

    /// Waits until all replicas are ready, and the API server reaches the webhook by its Service.
    pub async fn rolled_out(&self) -> Result<()> {
        let deployments = self.deployments();
        eventually(ROLL_OUT, "the operator is rolled out", async || {
            Ok(is_rolled_out(&deployments.get(NAME).await?).then_some(()))
        })
        .await?;
        // A replica that goes serves on for a while, and the API server may still have a connection to it.
        eventually(ROLL_OUT, "no earlier pod of the operator is left", async || {
            let going = self.pods().await?.iter().any(|pod| pod.metadata.deletion_timestamp.is_some());
            Ok((!going).then_some(()))
        })
        .await?;
        let probe = manifests::opted_in(manifests::pod("probe", &["sleep"])).to_string();
        eventually(ROLL_OUT, "the webhook answers", async || {
            let output = self.cluster.kubectl(&["create", "--dry-run=server", "-f", "-"], &probe).await?;
            // The namespace has no policy, and only the webhook knows that.
            let refusal = output.refused()?;
            ensure!(refusal.contains("denied the request"), "{refusal}");
            Ok(Some(()))
        })
        .await
    }

    async fn scale(&self, replicas: i32) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
        self.deployments().patch_scale(NAME, &PatchParams::default(), &patch).await?;
        Ok(())
    }

    async fn no_pods(&self) -> Result<()> {
        eventually(ROLL_OUT, "no pod of the operator is left", async || {
            Ok(self.pods().await?.is_empty().then_some(()))
        })
        .await
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }
}

/// Names the build of the operator's image, so that an image built again under its tag replaces the pods.
fn build() -> String {
    let newest = fs::read_dir(cluster::root().join("target/images"))
        .into_iter()
        .flatten()
        .flatten()
        .filter(|file| {
            let name = file.file_name().to_string_lossy().into_owned();
            name.starts_with("sidecar-operator") && name.ends_with(".key")
        })
        .max_by_key(|file| file.metadata().and_then(|metadata| metadata.modified()).ok());
    newest
        .and_then(|file| fs::read_to_string(file.path()).ok())
        .map_or_else(|| "pulled".to_owned(), |key| key.trim().to_owned())
}
