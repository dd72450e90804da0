//! method and path -> response.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Response, StatusCode,
    header::{ALLOW, CONTENT_TYPE, HeaderValue},
};
use prometheus_client::{encoding::text::encode, registry::Registry};

use crate::runtime::{Health, Status};

const TEXT: &str = "text/plain; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What the endpoints tell.
pub struct Endpoints {
    health: Arc<Health>,
    registry: Registry,
}

impl Endpoints {
    pub fn new(health: Arc<Health>, registry: Registry) -> Self {
        Self { health, registry }
    }

    pub(super) fn respond(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        let known = matches!(path, "/live" | "/ready" | "/metrics");
        if known && method != Method::GET && method != Method::HEAD {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are possible\n".to_owned());
            response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match path {
            "/live" => self.live(),
            "/ready" => self.ready(),
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "there are /live, /ready and /metrics\n".to_owned()),
        }
    }

    fn live(&self) -> Response<Full<Bytes>> {
        if self.health.is_live() {
            text(StatusCode::OK, "live\n".to_owned())
        } else {
            text(StatusCode::SERVICE_UNAVAILABLE, "the control loop is stuck\n".to_owned())
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        match self.health.status() {
            Status::Started => text(StatusCode::OK, "ready\n".to_owned()),
            Status::Draining => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n".to_owned()),
            Status::Starting(waiting) => {
                let lines = waiting.into_iter().map(|reason| reason + "\n");
                text(StatusCode::SERVICE_UNAVAILABLE, lines.collect())
            }
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        match encode(&mut body, &self.registry) {
            Ok(()) => response(StatusCode::OK, OPEN_METRICS, body),
            Err(error) => {
                text(StatusCode::INTERNAL_SERVER_ERROR, format!("metrics cannot be written: {error}\n"))
            }
        }
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    response(status, TEXT, body)
}

fn response(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::telemetry;

    async fn body(response: Response<Full<Bytes>>) -> String {
        String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
    }

    #[tokio::test]
    async fn ready_tells_what_it_waits_for() {
        let health = Arc::new(Health::new());
        let endpoints = Endpoints::new(health.clone(), Registry::default());
        health.set(Status::Starting(vec!["listener a: not yet".to_owned()]));
        let response = endpoints.respond(&Method::GET, "/ready");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(body(response).await, "listener a: not yet\n");
        health.set(Status::Started);
        assert_eq!(endpoints.respond(&Method::GET, "/ready").status(), StatusCode::OK);
        assert_eq!(endpoints.respond(&Method::GET, "/live").status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn only_three_paths_and_only_reading() {
        let endpoints = Endpoints::new(Arc::new(Health::new()), Registry::default());
        assert_eq!(endpoints.respond(&Method::POST, "/live").status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(endpoints.respond(&Method::GET, "/quitquitquit").status(), StatusCode::NOT_FOUND);
        assert_eq!(endpoints.respond(&Method::POST, "/quitquitquit").status(), StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn metrics_are_open_metrics() {
        let mut registry = Registry::default();
        telemetry::process::register(&mut registry);
        let control = telemetry::metrics::Control::register(&mut registry);
        control.refused();
        control.accepted(Some(7));
        let endpoints = Endpoints::new(Arc::new(Health::new()), registry);
        let response = endpoints.respond(&Method::GET, "/metrics");
        assert_eq!(response.headers()[CONTENT_TYPE], OPEN_METRICS);
        let text = body(response).await;
        for line in [
            "sidecar_config_last_reload_success 1",
            "sidecar_config_rejected_total 1",
            "sidecar_config_generation 7",
            "sidecar_build_info{version=\"0.1.0\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        for name in ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(text.lines().any(|line| line.starts_with(name)), "{name} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
