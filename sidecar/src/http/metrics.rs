//! Counters of the HTTP data plane.

use std::sync::Arc;

use prometheus_client::registry::Registry;

/// All series of the HTTP listeners; a backend's series go when the backend goes.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    pub fn register(_registry: &mut Registry) -> Arc<Self> {
        Arc::default()
    }
}
