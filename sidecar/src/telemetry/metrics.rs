//! What the control loop counts.

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, info::Info},
    registry::Registry,
};

/// Metrics of the configuration and of the process's life.
#[derive(Debug, Clone, Default)]
pub struct Control {
    last_reload_success: Gauge,
    rejected: Counter,
    generation: Gauge,
    started: Gauge,
}

impl Control {
    pub fn register(registry: &mut Registry) -> Self {
        let control = Self::default();
        registry.register(
            "sidecar_build",
            "The release that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "sidecar_config_last_reload_success",
            "Whether the configuration that was read last could be used",
            control.last_reload_success.clone(),
        );
        registry.register(
            "sidecar_config_rejected",
            "Configurations that could not be used",
            control.rejected.clone(),
        );
        registry.register(
            "sidecar_config_generation",
            "Generation of the policy that the configuration in use was made from; 0 for one written by hand",
            control.generation.clone(),
        );
        registry.register(
            "sidecar_started",
            "Whether the configuration is loaded, the listeners are open and the backends were known once",
            control.started.clone(),
        );
        control
    }

    /// A configuration is in use; without a generation the one before was confirmed, or it has none.
    pub fn accepted(&self, generation: Option<i64>) {
        self.last_reload_success.set(1);
        if let Some(generation) = generation {
            self.generation.set(generation);
        }
    }

    pub fn refused(&self) {
        self.last_reload_success.set(0);
        self.rejected.inc();
    }

    pub fn started(&self) {
        self.started.set(1);
    }
}
