//! The examples of deploy/ do what their first lines say.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crds::{names::ADMIN_PORT, policy::conditions};
use e2e::{
    Load, Namespace, eventually,
    manifests::{self, REPORT_PORT},
    sidecar, with_namespace,
};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};

/// Where the applications of the examples listen, on their loopback.
const APPLICATION_PORT: u16 = 8081;

async fn apply(ns: &Namespace, example: &str) -> Result<()> {
    let example = example.replace("sidecar-workload:0.1.0", &manifests::workload_image());
    ns.kubectl(&["apply", "-f", "-"], &example).await?.accepted().map(drop)
}

#[tokio::test]
async fn an_application_behind_its_sidecar_is_reached_through_it_alone() -> Result<()> {
    with_namespace("inbound", async |ns| {
        apply(ns, include_str!("../../../deploy/examples/inbound.yaml")).await?;
        ns.condition("reports", conditions::READY, "True").await?;
        let pods = ns.rolled_out("reports").await?;
        for pod in &pods {
            sidecar(pod)?;
            // The API server reaches the pod's address, as any other pod does.
            let hidden = ns.is_unreachable(&pod.name_any(), APPLICATION_PORT).await?;
            ensure!(hidden, "the application itself answers on the pod's address");
        }
        // A client without a sidecar.
        let report_port = REPORT_PORT.to_string();
        ns.apply(&[manifests::pod("client", &Load::arguments("http://reports/", &report_port))]).await?;
        let report = Load::of(ns, "client").await?.unharmed().await?;
        ensure!(!report.backends.is_empty(), "the application answers: {report:?}");
        for pod in &pods {
            let (_, page) = ns.http_get(&pod.name_any(), ADMIN_PORT, "/metrics").await?;
            let up = "sidecar_http_backend_up{listener=\"inbound\",site=\"application\",backend=\"127.0.0.1:8081\"} 1";
            ensure!(page.contains(up), "the sidecar knows its application: {page}");
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_application_behind_its_sidecar_is_rolled_under_load_and_fails_no_request() -> Result<()> {
    rolled("Native").await
}

#[tokio::test]
async fn an_application_behind_an_ordinary_container_is_rolled_under_load_too() -> Result<()> {
    rolled("Container").await
}

/// Replaces all pods of the example, in which sidecars are run in this mode, while others ask for it.
async fn rolled(mode: &str) -> Result<()> {
    with_namespace("inbound-rolled", async |ns| {
        let mode = format!("sidecar.io/inject: \"true\"\n        sidecar.io/mode: {mode}");
        let example = include_str!("../../../deploy/examples/inbound.yaml");
        apply(ns, &example.replace("sidecar.io/inject: \"true\"", &mode)).await?;
        ns.condition("reports", conditions::READY, "True").await?;
        let before = ns.rolled_out("reports").await?;
        // Clients that keep their connections to a pod that goes, and clients that the Service sends there still.
        let report_port = REPORT_PORT.to_string();
        let keeping = Load::arguments("http://reports/", &report_port);
        let connecting = [&keeping[..], &["--reconnect"]].concat();
        ns.apply(&[manifests::pod("keeping", &keeping), manifests::pod("connecting", &connecting)]).await?;
        let loads = [Load::of(ns, "keeping").await?, Load::of(ns, "connecting").await?];
        ns.kubectl(&["rollout", "restart", "deployment/reports"], "").await?.accepted()?;
        let after = ns.rolled_out("reports").await?;
        for pod in &before {
            ns.gone(&pod.name_any()).await?;
        }
        for load in &loads {
            let shares = load.more(200).await?;
            ensure!(shares.keys().all(|pod| after.iter().any(|new| new.name_any() == *pod)), "{shares:?}");
            load.unharmed().await?;
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn renewed_certificates_serve_both_sides_and_fail_no_request() -> Result<()> {
    with_namespace("tls", async |ns| {
        let authority = Authority::new()?;
        let first = authority.secrets(&ns.name, 30)?;
        ns.apply(&first).await?;
        apply(ns, include_str!("../../../deploy/examples/tls.yaml")).await?;
        for policy in ["web", "client"] {
            ns.condition(policy, conditions::READY, "True").await?;
        }
        let web = ns.rolled_out("web").await?;
        let load = Load::start(ns, "client", 9000).await?;
        let client = ns.ready("client").await?;
        for pod in &web {
            // No certificate, and no TLS either.
            let refused = ns.is_unreachable(&pod.name_any(), 8443).await?;
            ensure!(refused, "a client without a certificate is answered");
        }
        let before = expiry(ns, &client).await?;
        ns.apply(&authority.secrets(&ns.name, 60)?).await?;
        for pod in web.iter().chain([&client]) {
            // The kubelet looks at Secrets about once a minute.
            eventually(Duration::from_secs(180), "the renewed certificate is in use", async || {
                Ok((expiry(ns, pod).await? > before).then_some(()))
            })
            .await?;
        }
        load.more(100).await?;
        // New pods mean new connections, with the renewed certificates on both sides.
        ns.kubectl(&["rollout", "restart", "deployment/web"], "").await?.accepted()?;
        ns.rolled_out("web").await?;
        load.unharmed().await.map(drop)
    })
    .await
}

/// When the first certificate of a pod's sidecar expires that is not a CA's.
async fn expiry(ns: &Namespace, pod: &Pod) -> Result<f64> {
    let (status, page) = ns.http_get(&pod.name_any(), ADMIN_PORT, "/metrics").await?;
    ensure!(status == 200, "{status}");
    let series = page.lines().filter(|line| {
        line.starts_with("sidecar_tls_certificate_expiry_timestamp_seconds{") && line.contains("-tls/")
    });
    let values = series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.reduce(f64::min).with_context(|| format!("no certificate is shown: {page}"))
}

struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self { pem, issuer: Issuer::new(params, key) })
    }

    /// What the example asks for, valid for so many days.
    fn secrets(&self, namespace: &str, days: u32) -> Result<Vec<Value>> {
        let secret = |name: &str, kind: &str, data: Value| json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind, "stringData": data});
        let pair = |name: &str, host: String| -> Result<Value> {
            let mut params = CertificateParams::new(vec![host])?;
            params.not_after =
                (std::time::SystemTime::now() + Duration::from_secs(u64::from(days) * 86_400)).into();
            let key = KeyPair::generate()?;
            let certificate = params.signed_by(&key, &self.issuer)?.pem();
            let data = json!({"tls.crt": certificate, "tls.key": key.serialize_pem()});
            Ok(secret(name, "kubernetes.io/tls", data))
        };
        Ok(vec![
            secret("ca", "Opaque", json!({"ca.crt": self.pem})),
            pair("web-tls", format!("web.{namespace}.svc"))?,
            pair("client-tls", "client".to_owned())?,
        ])
    }
}
