//! The cluster under test: the one that KUBECONFIG names, else the one that `make cluster-up` brought up.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::process::{self, Output};

/// A client of the cluster, and the programs that users change it with.
#[derive(Clone)]
pub struct Cluster {
    pub client: Client,
    /// The same, which takes the first answer, whatever it is.
    pub impatient: Client,
    kubeconfig: PathBuf,
    bin: PathBuf,
}

impl Cluster {
    /// Fails, and says how to bring a cluster up, where none is.
    pub async fn connect() -> Result<Self> {
        let kubeconfig = PathBuf::from(ask_control("kubeconfig").await?);
        let bin = PathBuf::from(ask_control("bin").await?);
        let file = Kubeconfig::read_from(&kubeconfig)
            .with_context(|| format!("cannot read the kubeconfig {}", kubeconfig.display()))?;
        let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        let mut once = config.clone();
        once.default_retry = false;
        let (client, impatient) = (Client::try_from(config)?, Client::try_from(once)?);
        client
            .apiserver_version()
            .await
            .context("the cluster does not answer; `make cluster-up` brings one up")?;
        Ok(Self { client, impatient, kubeconfig, bin })
    }

    pub async fn kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let arguments = [&["--request-timeout=60s"], arguments].concat();
        process::run(&self.bin.join("kubectl"), &arguments, &self.kubeconfig, input.to_owned()).await
    }

    pub async fn helm(&self, arguments: &[&str]) -> Result<Output> {
        process::run(&self.bin.join("helm"), arguments, &self.kubeconfig, String::new()).await
    }

    /// Runs a script as a reader of the documentation would: in the root of the repository, with kubectl and helm.
    pub async fn shell(&self, script: &str) -> Result<Output> {
        let inherited = env::var("PATH").unwrap_or_default();
        let script =
            format!("cd '{}'\nPATH='{}:{inherited}'\n{script}", root().display(), self.bin.display());
        process::run(Path::new("bash"), &["-euxo", "pipefail"], &self.kubeconfig, script).await
    }

    /// The audit log of the API server, which only a cluster of our own gives.
    pub async fn audit_log(&self) -> Result<String> {
        let path = self.kubeconfig.with_file_name("log").join("audit.log");
        let remedy = "only the cluster that e2e/cluster/up makes from source writes an audit log";
        tokio::fs::read_to_string(&path)
            .await
            .with_context(|| format!("cannot read {}: {remedy}", path.display()))
    }

    /// Does to the cluster what `e2e/cluster/control` can do: see there.
    pub async fn control(&self, command: &str) -> Result<String> {
        let output = process::run(&control(), &[command], &self.kubeconfig, String::new()).await?;
        Ok(output.accepted()?.stdout.trim().to_owned())
    }
}

/// The root of the repository, where the chart is.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

fn control() -> PathBuf {
    root().join("e2e/cluster/control")
}

async fn ask_control(what: &str) -> Result<String> {
    let kubeconfig = env::var_os("KUBECONFIG").map(PathBuf::from).unwrap_or_default();
    let output = process::run(&control(), &[what], &kubeconfig, String::new()).await?;
    let output = output
        .accepted()
        .context("there is no cluster; `make cluster-up` brings one up, or set KUBECONFIG")?;
    Ok(output.stdout.trim().to_owned())
}
