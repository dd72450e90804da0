//! What the control loop counts.

use crds::metrics::Metric;
use prometheus_client::{
    metrics::{MetricType, counter::Counter, gauge::Gauge, info::Info},
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

const BUILD: Metric = Metric {
    name: "sidecar_build",
    kind: MetricType::Info,
    labels: &["version"],
    help: "The release that runs",
    look: "During an upgrade: a pod keeps its release until it is replaced",
};

const LAST_RELOAD_SUCCESS: Metric = Metric {
    name: "sidecar_config_last_reload_success",
    kind: MetricType::Gauge,
    labels: &[],
    help: "Whether the configuration that was read last could be used",
    look: "After each change of a policy: 0 is a sidecar that goes on with the configuration before, and its log says why",
};

const REJECTED: Metric = Metric {
    name: "sidecar_config_rejected",
    kind: MetricType::Counter,
    labels: &[],
    help: "Configurations that could not be used",
    look: "When it grows, as above",
};

const GENERATION: Metric = Metric {
    name: "sidecar_config_generation",
    kind: MetricType::Gauge,
    labels: &[],
    help: "Generation of the policy that the configuration in use was made from; 0 for one written by hand",
    look: "To see which pods have taken over a change of the policy",
};

const STARTED: Metric = Metric {
    name: "sidecar_started",
    kind: MetricType::Gauge,
    labels: &[],
    help: "Whether the configuration is loaded, the listeners are open and the backends were known once",
    look: "When pods do not start: `/ready` on the same port says what is missing",
};

impl Control {
    pub(super) const FAMILIES: [&Metric; 5] =
        [&LAST_RELOAD_SUCCESS, &REJECTED, &GENERATION, &STARTED, &BUILD];

    pub fn register(registry: &mut Registry) -> Self {
        let control = Self::default();
        BUILD.register(registry, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        LAST_RELOAD_SUCCESS.register(registry, control.last_reload_success.clone());
        REJECTED.register(registry, control.rejected.clone());
        GENERATION.register(registry, control.generation.clone());
        STARTED.register(registry, control.started.clone());
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
