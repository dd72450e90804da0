//! The webhook in process, with bytes, and over TLS on a port of its own.

mod admission;
mod http;
mod tls;

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use axum::{
    body::Body,
    http::{Request, StatusCode, header},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::policy::SidecarPolicy;
use futures::{FutureExt, future::BoxFuture};
use http_body_util::BodyExt;
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{LiveReadError, Metrics, PolicySource, State, router};
use crate::inject::{Platform, Settings};

/// What the watch saw, and what the API server says.
#[derive(Default)]
struct Policies {
    cached: Vec<Arc<SidecarPolicy>>,
    unreadable: Vec<String>,
    live: Live,
    asked: AtomicUsize,
}

#[derive(Default)]
enum Live {
    Answers(Vec<Arc<SidecarPolicy>>),
    #[default]
    Fails,
    Hangs,
}

impl PolicySource for Policies {
    fn cached(&self, _: &str) -> Vec<Arc<SidecarPolicy>> {
        self.cached.clone()
    }

    fn unreadable(&self, _: &str) -> Vec<String> {
        self.unreadable.clone()
    }

    fn live<'a>(
        &'a self,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<SidecarPolicy>>, LiveReadError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        async move {
            match &self.live {
                Live::Answers(policies) => Ok(policies.clone()),
                Live::Fails => {
                    let source = kube::Error::LinesCodecMaxLineLengthExceeded;
                    Err(LiveReadError { namespace: namespace.to_owned(), source })
                }
                Live::Hangs => std::future::pending().await,
            }
        }
        .boxed()
    }
}

struct Webhook {
    router: axum::Router,
    policies: Arc<Policies>,
    registry: Registry,
}

impl Webhook {
    fn new(policies: Policies) -> Self {
        let mut registry = Registry::default();
        let policies = Arc::new(policies);
        let state = State {
            policies: policies.clone(),
            platform: Arc::new(ArcSwap::from_pointee(Platform { native_sidecars: true })),
            settings: Arc::new(Settings {
                sidecar_image: "sidecar:test".to_owned(),
                operator_namespace: "sidecar-system".to_owned(),
            }),
            metrics: Arc::new(Metrics::register(&mut registry)),
        };
        Self { router: router(state), policies, registry }
    }

    /// With one policy that selects everything.
    fn with_policy() -> Self {
        Self::new(Policies { cached: vec![policy("data", json!({}))], ..Policies::default() })
    }

    async fn post(&self, content_type: &str, body: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let request =
            Request::post("/inject").header(header::CONTENT_TYPE, content_type).body(body.into()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        let status = response.status();
        (status, response.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    /// The `response` of the review.
    async fn review(&self, review: &Value) -> Value {
        let (status, body) = self.post("application/json", review.to_string()).await;
        assert_eq!(status, StatusCode::OK, "{}", String::from_utf8_lossy(&body));
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(answer["kind"], "AdmissionReview");
        answer["response"].clone()
    }

    fn live_reads(&self) -> usize {
        self.policies.asked.load(Ordering::Relaxed)
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).unwrap();
        text
    }
}

fn policy(name: &str, spec: Value) -> Arc<SidecarPolicy> {
    let metadata = json!({"name": name, "namespace": "analytics", "generation": 3});
    let policy = json!({"apiVersion": "sidecar.io/v1alpha1", "kind": "SidecarPolicy", "metadata": metadata, "spec": spec});
    Arc::new(serde_json::from_value(policy).unwrap())
}

/// A review of a pod's creation, as API servers send it for a controller's pod.
fn review(annotations: Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "analytics",
            "operation": "CREATE",
            "userInfo": {"username": "system:serviceaccount:kube-system:replicaset-controller"},
            "dryRun": false,
            "object": {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"generateName": "web-7d9f-", "annotations": annotations},
                "spec": {"containers": [{"name": "app", "image": "app:1"}]},
            },
            "oldObject": null,
        },
    })
}

fn opted_in() -> Value {
    review(json!({"sidecar.io/inject": "true"}))
}

/// The operations of a response's patch.
fn patch(response: &Value) -> Vec<Value> {
    let bytes = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

const SOON: Duration = Duration::from_secs(10);
