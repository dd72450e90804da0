//! The server under measurement, in a process of its own: this program again, with a variable set.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::SocketAddr,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{Router, body::Bytes, http::header, routing::post};
use crds::policy::SidecarPolicy;
use futures::{FutureExt, future::BoxFuture};
use operator::{
    inject::{Platform, Settings},
    webhook::{LiveReadError, Metrics, PolicySource, State, serve as serve_tls, server_config},
};
use prometheus_client::registry::Registry;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::Failure;

const VARIABLE: &str = "WEBHOOK_BENCH_SERVER";
/// Policies of the namespace, the last of which selects the pod.
const POLICIES: usize = 5;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    /// Reads the body and answers what was made before: what the listener alone costs.
    Floor,
    Webhook,
}

impl Kind {
    /// What this process was started as, if it is a server.
    pub(crate) fn asked_for() -> Option<Self> {
        match env::var(VARIABLE).ok()?.as_str() {
            "floor" => Some(Self::Floor),
            _ => Some(Self::Webhook),
        }
    }
}

/// Serves on a port of its own, tells it and the certificate on standard output, and ends with standard input.
pub(crate) fn serve(kind: Kind) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let config = server_config(vec![certificate.clone()], key)?;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    writeln!(io::stdout().lock(), "{address} {}", hex::encode(&certificate))?;
    let tls = Arc::new(ArcSwap::from_pointee(config));
    let shutdown = CancellationToken::new();
    let task =
        runtime.spawn(serve_tls(listener, tls, router(kind), shutdown.clone(), Duration::from_secs(1)));
    io::stdin().read_to_end(&mut Vec::new())?;
    shutdown.cancel();
    Ok(runtime.block_on(task)??)
}

pub(crate) fn router(kind: Kind) -> Router {
    let mut registry = Registry::default();
    let state = State {
        policies: Arc::new(Policies((0..POLICIES).map(policy).collect())),
        platform: Arc::new(ArcSwap::from_pointee(Platform { native_sidecars: true })),
        settings: Arc::new(Settings {
            sidecar_image: "sidecar:bench".to_owned(),
            operator_namespace: "sidecar-system".to_owned(),
        }),
        metrics: Arc::new(Metrics::register(&mut registry)),
    };
    match kind {
        Kind::Webhook => operator::webhook::router(state),
        Kind::Floor => {
            let answer = Bytes::from(vec![b' '; 4_800]);
            let respond =
                move |_: Bytes| async move { ([(header::CONTENT_TYPE, "application/json")], answer) };
            Router::new().route("/inject", post(respond))
        }
    }
}

/// A server process; it ends when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    pub(crate) address: SocketAddr,
    pub(crate) certificate: CertificateDer<'static>,
}

impl Child {
    pub(crate) fn start(kind: Kind) -> Result<Self, Failure> {
        let name = if kind == Kind::Floor { "floor" } else { "webhook" };
        let mut process = Command::new(env::current_exe()?)
            .env(VARIABLE, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (address, certificate) = line.trim().split_once(' ').ok_or("the server did not start")?;
        Ok(Self { address: address.parse()?, certificate: hex::decode(certificate)?.into(), process })
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

struct Policies(Vec<Arc<SidecarPolicy>>);

impl PolicySource for Policies {
    fn cached(&self, _: &str) -> Vec<Arc<SidecarPolicy>> {
        self.0.clone()
    }

    fn unreadable(&self, _: &str) -> Vec<String> {
        Vec::new()
    }

    fn live<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<Vec<Arc<SidecarPolicy>>, LiveReadError>> {
        std::future::ready(Ok(self.0.clone())).boxed()
    }
}

#[expect(clippy::expect_used, reason = "a benchmark may end early")]
fn policy(index: usize) -> Arc<SidecarPolicy> {
    let team = if index + 1 == POLICIES { "data".to_owned() } else { format!("team-{index}") };
    let policy = json!({
        "apiVersion": "sidecar.io/v1alpha1",
        "kind": "SidecarPolicy",
        "metadata": {"name": format!("policy-{index}"), "namespace": "analytics", "generation": 7},
        "spec": {
            "podSelector": {"matchLabels": {"team": team}},
            "http": [{"name": "minio", "port": 9000, "sites": [
                {"name": "primary", "backends": [{"service": {"name": "minio", "port": 9000}}]},
            ]}],
        },
    });
    Arc::new(serde_json::from_value(policy).expect("a policy"))
}
