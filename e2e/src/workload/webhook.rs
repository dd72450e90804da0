//! A mutating webhook of somebody else, which runs after the operator's: AdmissionReview -> JSON patch.

use std::{net::Ipv4Addr, path::PathBuf, sync::Arc};

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use crds::names;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::{say, server};

const MAX_REVIEW: usize = 8 << 20;

#[derive(Debug, Args)]
pub struct Webhook {
    /// Port to listen on.
    #[arg(long, default_value_t = 8443)]
    port: u16,
    /// Folder with tls.crt and tls.key.
    #[arg(long)]
    certificate_dir: PathBuf,
    /// What it does to a pod.
    #[arg(long)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Adds a label, a container, and a variable to every container.
    Change,
    /// Removes the sidecar.
    RemoveSidecar,
}

impl Webhook {
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let tls = TlsAcceptor::from(Arc::new(self.tls()?));
        let listener = server::listen((Ipv4Addr::UNSPECIFIED, self.port).into()).await?;
        say(&format!("webhook serves port {}", self.port));
        let mode = self.mode;
        server::serve(listener, Some(tls), stop, move |request| review(mode, request)).await;
        Ok(())
    }

    fn tls(&self) -> anyhow::Result<ServerConfig> {
        let (certificate, key) = (self.certificate_dir.join("tls.crt"), self.certificate_dir.join("tls.key"));
        let chain = CertificateDer::pem_file_iter(&certificate)
            .and_then(Iterator::collect)
            .with_context(|| format!("cannot read {}", certificate.display()))?;
        let key =
            PrivateKeyDer::from_pem_file(&key).with_context(|| format!("cannot read {}", key.display()))?;
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        Ok(config)
    }
}

async fn review(mode: Mode, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let answer = match Limited::new(request.into_body(), MAX_REVIEW).collect().await {
        Ok(body) => answer(mode, &body.to_bytes()),
        Err(error) => Err(anyhow::anyhow!("cannot read the review: {error}")),
    };
    let (status, body) = match answer {
        Ok(review) => (StatusCode::OK, review.to_string()),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

fn answer(mode: Mode, body: &[u8]) -> anyhow::Result<Value> {
    let review: Value = serde_json::from_slice(body).context("the review is not JSON")?;
    let request = review.get("request").context("the review has no request")?;
    let patch = match mode {
        Mode::Change => change(&request["object"]),
        Mode::RemoveSidecar => remove_sidecar(&request["object"]),
    };
    Ok(json!({
        "apiVersion": review["apiVersion"],
        "kind": review["kind"],
        "response": {
            "uid": request["uid"],
            "allowed": true,
            "patchType": "JSONPatch",
            "patch": BASE64_STANDARD.encode(Value::from(patch).to_string()),
        },
    }))
}

fn change(pod: &Value) -> Vec<Value> {
    // Asked again about a pod that it has changed, it leaves it.
    if containers(pod, "containers").any(|container| container["name"] == "late") {
        return Vec::new();
    }
    let mut patch = vec![match pod["metadata"]["labels"] {
        Value::Object(_) => json!({"op": "add", "path": "/metadata/labels/late", "value": "true"}),
        _ => json!({"op": "add", "path": "/metadata/labels", "value": {"late": "true"}}),
    }];
    for list in ["initContainers", "containers"] {
        for (index, container) in containers(pod, list).enumerate() {
            let at = format!("/spec/{list}/{index}/env");
            let variable = json!({"name": "LATE", "value": "true"});
            patch.push(match container["env"] {
                Value::Array(_) => json!({"op": "add", "path": format!("{at}/-"), "value": variable}),
                _ => json!({"op": "add", "path": at, "value": [variable]}),
            });
        }
    }
    let late = json!({
        "name": "late",
        "image": pod["spec"]["containers"][0]["image"],
        "imagePullPolicy": "IfNotPresent",
        "args": ["sleep"],
    });
    patch.push(json!({"op": "add", "path": "/spec/containers/-", "value": late}));
    patch
}

fn remove_sidecar(pod: &Value) -> Vec<Value> {
    ["initContainers", "containers"]
        .into_iter()
        .filter_map(|list| {
            let index = containers(pod, list).position(|container| container["name"] == names::CONTAINER)?;
            Some(json!({"op": "remove", "path": format!("/spec/{list}/{index}")}))
        })
        .collect()
}

fn containers<'a>(pod: &'a Value, list: &str) -> impl Iterator<Item = &'a Value> {
    pod["spec"][list].as_array().into_iter().flatten()
}
