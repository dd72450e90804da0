//! bytes -> AdmissionReview -> inject -> bytes, behind a TLS listener of its own.
//!
//! Every byte is bounded, every wait has an end, and whatever arrives is answered: an opted-in pod is injected or
//! refused, never let through bare because something went wrong here.

mod handler;
mod metrics;
mod peers;
mod policies;
mod review;
mod serve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
pub use handler::router;
pub(crate) use metrics::FAMILIES;
pub use metrics::Metrics;
pub use policies::{LiveReadError, PolicySource};
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
