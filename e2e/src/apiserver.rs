//! A real API server without a cluster: etcd and kube-apiserver, ready in seconds.
//!
//! One per test program, with the CRD applied; each test takes a namespace of its own. Both processes are told to die
//! with the thread that started them, which lives as long as the program: nothing is left, even after a crash.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use k8s_openapi::{
    api::core::v1::Namespace, apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Config,
    api::{ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
    runtime::wait::{await_condition, conditions},
};

use crate::child::{dying_with_parent, free_ports, launch, path_from};

const START: Duration = Duration::from_secs(60);
const TOKEN: &str = "test-administrator";

/// A running pair of etcd and kube-apiserver.
pub struct ApiServer {
    directory: tempfile::TempDir,
    kubeconfig: PathBuf,
    tools: PathBuf,
    namespaces: AtomicU32,
}

impl ApiServer {
    /// The API server of this test program, started by the first call.
    ///
    /// # Panics
    /// When it cannot be started: the tests that need it then fail with the cause.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceLock<anyhow::Result<ApiServer>> = OnceLock::new();
        tokio::task::spawn_blocking(|| match SHARED.get_or_init(Self::start) {
            Ok(server) => server,
            Err(error) => panic!("the API server for this test did not start: {error:#}"),
        })
        .await
        .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    /// Starts a pair of its own. Blocks until the server is ready and the CRD is established.
    pub fn start() -> anyhow::Result<Self> {
        let tools = tools(&["api"])?;
        let directory = tempfile::tempdir()?;
        write_keys(directory.path())?;
        let [client, peer, secure] = free_ports();
        launch(etcd(&tools, directory.path(), client, peer), directory.path().join("etcd.log"))?;
        launch(apiserver(&tools, directory.path(), client, secure), directory.path().join("apiserver.log"))?;
        let kubeconfig = directory.path().join("kubeconfig");
        std::fs::write(&kubeconfig, kubeconfig_text(secure))?;
        let server = Self { directory, kubeconfig, tools, namespaces: AtomicU32::new(0) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            match tokio::time::timeout(START, server.prepare()).await {
                Ok(done) => done,
                Err(_) => bail!("not ready after {START:?}; its last words:\n{}", server.log_tail()),
            }
        })?;
        Ok(server)
    }

    /// Waits for readiness, then applies the CRD.
    async fn prepare(&self) -> anyhow::Result<()> {
        let client = self.client().await?;
        while client.request_text(http_get("/readyz")?).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let crds: Api<CustomResourceDefinition> = Api::all(client);
        let crd = crds::generate::policy_crd()?;
        let name = crd["metadata"]["name"].as_str().context("the CRD has no name")?.to_owned();
        crds.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(&crd)).await?;
        await_condition(crds, &name, conditions::is_crd_established()).await?;
        Ok(())
    }

    /// A client with all rights, for the runtime that asks.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_as(None).await
    }

    /// A client that acts as `user`, to prove what a ServiceAccount may do.
    pub async fn client_as(&self, user: Option<&str>) -> anyhow::Result<Client> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&self.kubeconfig)?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        config.auth_info.impersonate = user.map(str::to_owned);
        Ok(Client::try_from(config)?)
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// kubectl, with all rights on this server.
    pub fn kubectl(&self) -> Command {
        let mut command = Command::new(self.tools.join("kubectl"));
        command.env("KUBECONFIG", &self.kubeconfig).env("HOME", self.directory.path());
        command
    }

    /// Makes a namespace whose name starts with `prefix` and is no other test's.
    pub async fn namespace(&self, prefix: &str) -> anyhow::Result<String> {
        self.annotated_namespace(prefix, BTreeMap::new()).await
    }

    /// Like [`namespace`](Self::namespace), with annotations.
    pub async fn annotated_namespace(
        &self,
        prefix: &str,
        annotations: BTreeMap<String, String>,
    ) -> anyhow::Result<String> {
        let name = format!("{prefix}-{}", self.namespaces.fetch_add(1, Ordering::Relaxed));
        let metadata =
            ObjectMeta { name: Some(name.clone()), annotations: Some(annotations), ..ObjectMeta::default() };
        let namespace = Namespace { metadata, ..Namespace::default() };
        Api::all(self.client().await?).create(&PostParams::default(), &namespace).await?;
        Ok(name)
    }

    fn log_tail(&self) -> String {
        ["etcd.log", "apiserver.log"]
            .iter()
            .filter_map(|file| std::fs::read_to_string(self.directory.path().join(file)).ok())
            .flat_map(|log| log.lines().rev().take(10).map(str::to_owned).collect::<Vec<_>>())
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The folder with the tools of these groups, which are built first where they are missing.
pub fn tools(groups: &[&str]) -> anyhow::Result<PathBuf> {
    path_from("cluster/tools/build", groups)
}

fn http_get(path: &str) -> anyhow::Result<http::Request<Vec<u8>>> {
    Ok(http::Request::get(path).body(Vec::new())?)
}

/// Keys that sign ServiceAccount tokens, and the administrator's token.
fn write_keys(directory: &Path) -> anyhow::Result<()> {
    let key = rcgen::KeyPair::generate()?;
    std::fs::write(directory.join("sa.key"), key.serialize_pem())?;
    std::fs::write(directory.join("sa.pub"), key.public_key_pem())?;
    std::fs::write(directory.join("tokens.csv"), format!("{TOKEN},admin,admin,system:masters\n"))?;
    Ok(())
}

fn etcd(tools: &Path, directory: &Path, client: u16, peer: u16) -> Command {
    let mut command = dying_with_parent(&tools.join("etcd"));
    command.arg("--data-dir").arg(directory.join("etcd")).args([
        format!("--listen-client-urls=http://127.0.0.1:{client}"),
        format!("--advertise-client-urls=http://127.0.0.1:{client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        "--unsafe-no-fsync".to_owned(),
    ]);
    command
}

fn apiserver(tools: &Path, directory: &Path, etcd: u16, secure: u16) -> Command {
    let mut command = dying_with_parent(&tools.join("kube-apiserver"));
    let file = |name: &str| directory.join(name).display().to_string();
    command.args([
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        "--bind-address=127.0.0.1".to_owned(),
        "--endpoint-reconciler-type=none".to_owned(),
        format!("--secure-port={secure}"),
        format!("--cert-dir={}", file("certificates")),
        format!("--token-auth-file={}", file("tokens.csv")),
        "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
        format!("--service-account-key-file={}", file("sa.pub")),
        format!("--service-account-signing-key-file={}", file("sa.key")),
        "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
        "--authorization-mode=RBAC".to_owned(),
        // No controller makes the default ServiceAccounts here, without which no pod could be created.
        "--disable-admission-plugins=ServiceAccount".to_owned(),
    ]);
    command
}

fn kubeconfig_text(port: u16) -> String {
    format!(
        "apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: 'https://127.0.0.1:{port}', insecure-skip-tls-verify: true}}}}]
users: [{{name: admin, user: {{token: {TOKEN}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: admin}}}}]
current-context: test
"
    )
}
