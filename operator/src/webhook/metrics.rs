//! Metrics of the webhook. Every label has few values, whatever arrives.

use crds::metrics::Metric;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeLabelValue},
    metrics::{
        MetricType,
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
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

impl Outcome {
    const ALL: [Self; 5] = [Self::Injected, Self::Kept, Self::Skipped, Self::Denied, Self::Failed];
}

impl Rejection {
    const ALL: [Self; 5] = [Self::ContentType, Self::TooLarge, Self::Malformed, Self::Slow, Self::Busy];
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: Outcome,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByReason {
    reason: Rejection,
}

const ADMISSIONS: Metric = Metric {
    name: "sidecar_operator_webhook_admissions",
    kind: MetricType::Counter,
    labels: &["outcome"],
    help: "Pods decided about, by outcome: `Injected`, `Kept` as a former pass injected them, `Skipped`, `Denied`, or `Failed` because policies could not be read",
    look: "When pods are missing: `Denied` ones have an event that says why, `Failed` ones are tried again by their controllers",
};

const REJECTIONS: Metric = Metric {
    name: "sidecar_operator_webhook_rejections",
    kind: MetricType::Counter,
    labels: &["reason"],
    help: "Requests that are no admission, by reason: `ContentType`, `TooLarge`, `Malformed`, `Slow`, or `Busy` where there were too many at once",
    look: "When it grows: only the API server should call the webhook, and `Slow` and `Busy` are pods that were not admitted",
};

const LIVE_READS: Metric = Metric {
    name: "sidecar_operator_webhook_live_reads",
    kind: MetricType::Counter,
    labels: &[],
    help: "Admissions that asked the API server for policies",
    look: "When admissions are slow: it is rare once a replica has its caches",
};

const IN_FLIGHT: Metric = Metric {
    name: "sidecar_operator_webhook_in_flight",
    kind: MetricType::Gauge,
    labels: &[],
    help: "Admissions being decided now",
    look: "When admissions are slow: many at once ask for more replicas",
};

const DURATION: Metric = Metric {
    name: "sidecar_operator_webhook_admission_duration_seconds",
    kind: MetricType::Histogram,
    labels: &[],
    help: "Time from the first byte of a request's body to its answer",
    look: "When pods are slow to be created; the API server waits for `webhook.timeoutSeconds`",
};

/// What the webhook shows in metrics.
pub(crate) const FAMILIES: [&Metric; 5] = [&ADMISSIONS, &DURATION, &IN_FLIGHT, &LIVE_READS, &REJECTIONS];

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
        // A counter that appears with its first event shows no increase for it.
        for outcome in Outcome::ALL {
            drop(metrics.admissions.get_or_create(&ByOutcome { outcome }));
        }
        for reason in Rejection::ALL {
            drop(metrics.rejections.get_or_create(&ByReason { reason }));
        }
        ADMISSIONS.register(registry, metrics.admissions.clone());
        REJECTIONS.register(registry, metrics.rejections.clone());
        LIVE_READS.register(registry, metrics.live_reads.clone());
        IN_FLIGHT.register(registry, metrics.in_flight.clone());
        DURATION.register(registry, metrics.duration.clone());
        metrics
    }

    pub(super) fn admitted(&self, outcome: Outcome) {
        self.admissions.get_or_create(&ByOutcome { outcome }).inc();
    }

    pub(super) fn rejected(&self, reason: Rejection) {
        self.rejections.get_or_create(&ByReason { reason }).inc();
    }
}
