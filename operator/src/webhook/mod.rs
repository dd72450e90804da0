//! bytes -> AdmissionReview -> inject -> bytes, behind a TLS listener of its own.

mod metrics;
mod policies;
mod serve;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
pub use metrics::Metrics;
pub use policies::{ClusterPolicies, LiveReadError, PolicySource};
pub use serve::{ServeError, serve, server_config};

use crate::inject::{Platform, Settings};

/// What every admission needs. Cheap to clone.
#[derive(Clone)]
pub struct State {
    pub policies: Arc<dyn PolicySource>,
    pub platform: Arc<ArcSwap<Platform>>,
    pub settings: Arc<Settings>,
    pub metrics: Arc<Metrics>,
}

/// `POST /inject`.
pub fn router(state: State) -> Router {
    Router::new().with_state(state)
}
