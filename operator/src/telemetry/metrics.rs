//! Metrics of the process, and the reference of all there are.

use crds::metrics::{Group, Metric};
use prometheus_client::{
    metrics::{MetricType, gauge::Gauge, info::Info},
    registry::Registry,
};

use crate::{certificates, webhook};

const INTRODUCTION: &str = "At `/metrics` on port 8080 of each replica, and through the Service `sidecar-operator-metrics`. `process_*` is not
among them: the kubelet's metrics of the container say the same.";

const BUILD: Metric = Metric {
    name: "sidecar_operator_build",
    kind: MetricType::Info,
    labels: &["version"],
    help: "The running release",
    look: "During an upgrade: all replicas should come to have the same",
};

const LEADING: Metric = Metric {
    name: "sidecar_operator_leading",
    kind: MetricType::Gauge,
    labels: &[],
    help: "1 while this replica holds the lease",
    look: "When policies do not come to be Accepted: the sum over all replicas is 1, but for seconds",
};

/// What the process shows of itself.
#[derive(Debug)]
pub struct Process {
    pub leading: Gauge,
}

impl Process {
    /// Registers the metrics; once per process.
    pub fn register(registry: &mut Registry) -> Self {
        let process = Self { leading: Gauge::default() };
        BUILD.register(registry, Info::new([("version", env!("CARGO_PKG_VERSION"))]));
        LEADING.register(registry, process.leading.clone());
        process
    }
}

/// The operator's section of the reference.
pub fn reference() -> String {
    crds::metrics::reference("The operator", INTRODUCTION, &groups())
}

/// All families.
pub fn groups() -> [Group; 2] {
    [
        Group { title: "Webhook", metrics: webhook::FAMILIES.to_vec() },
        Group { title: "Replica", metrics: vec![&certificates::EXPIRY, &LEADING, &BUILD] },
    ]
}
