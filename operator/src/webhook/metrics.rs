//! Metrics of the webhook. Every label has few values, whatever arrives.

use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::{Registry, Unit},
};

/// What became of an admission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Outcome {
    Injected,
    /// Injected already, by a former pass.
    Kept,
    Skipped,
    Denied,
    /// Refused because the policies could not be read.
    Failed,
}

/// Why a request was answered with a status of its own, without an AdmissionReview.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum Rejection {
    ContentType,
    TooLarge,
    Malformed,
    Slow,
    Busy,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Rejection,
}

/// Counts decisions and times them.
#[derive(Debug)]
pub struct Metrics {
    admissions: Family<ByOutcome, Counter>,
    rejections: Family<ByReason, Counter>,
    pub(super) live_reads: Counter,
    pub(super) in_flight: Gauge,
    pub(super) duration: Histogram,
}

impl Metrics {
    /// Registers the metrics; once per process.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            admissions: Family::default(),
            rejections: Family::default(),
            live_reads: Counter::default(),
            in_flight: Gauge::default(),
            duration: Histogram::new(exponential_buckets(0.000_1, 2.0, 16)),
        };
        let registry = registry.sub_registry_with_prefix("webhook");
        registry.register("admissions", "Pods decided about, by outcome", metrics.admissions.clone());
        registry.register(
            "rejections",
            "Requests that are no admission, by reason",
            metrics.rejections.clone(),
        );
        registry.register(
            "live_reads",
            "Admissions that asked the API server for policies",
            metrics.live_reads.clone(),
        );
        registry.register("in_flight", "Admissions being decided now", metrics.in_flight.clone());
        registry.register_with_unit(
            "admission_duration",
            "Time from the first byte of a request's body to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        metrics
    }

    pub(super) fn admitted(&self, outcome: Outcome) {
        self.admissions.get_or_create(&ByOutcome { outcome }).inc();
    }

    pub(super) fn rejected(&self, reason: Rejection) {
        self.rejections.get_or_create(&ByReason { reason }).inc();
    }
}
