//! Counters of the HTTP data plane. Written as bare atomics through handles that a thread already holds; read, named and
//! labelled when a scrape comes. A backend that has gone takes its series with it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use crds::metrics::Metric;
use http::StatusCode;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
    registry::Registry,
};
use tokio::sync::watch;

use super::{Gate, families, reply::Cause, sidekick_page::Figures};
use crate::{
    balance::{Backend, Condition, Route},
    telemetry::{
        histogram::Histogram,
        shown::{Named, Shown},
    },
};

/// What is counted for each backend.
#[derive(Debug, Default)]
pub(super) struct Counters {
    answers: [AtomicU64; 5],
    pub(super) retries: AtomicU64,
    pub(super) connect_failures: AtomicU64,
    pub(super) resumed: AtomicU64,
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// What is counted for each listener, by thread.
#[derive(Debug, Default)]
pub(super) struct ThreadCounters {
    pub(super) connections: AtomicUsize,
    pub(super) requests: AtomicUsize,
    pub(super) durations: Histogram,
    own: [AtomicU64; 5],
    refused: [AtomicU64; Cause::ALL.len()],
}

/// A listener as scrapes see it; it is in them for as long as it lives.
pub(super) struct ListenerMetrics {
    pub(super) name: String,
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) gate: watch::Receiver<Arc<Gate>>,
    pub(super) threads: Vec<Arc<ThreadCounters>>,
}

impl Named for ListenerMetrics {
    fn name(&self) -> &str {
        &self.name
    }
}

/// All series of the HTTP listeners.
#[derive(Default)]
pub struct Metrics {
    listeners: Shown<ListenerMetrics>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Arc::<Self>::default();
        registry.register_collector(Box::new(Arc::clone(&metrics)));
        metrics
    }

    pub(super) fn add(&self, listener: &Arc<ListenerMetrics>) {
        self.listeners.add(listener);
    }
}

impl Counters {
    pub(super) fn answered(&self, status: u16) {
        self.answers[class(status)].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn figures(&self) -> Figures {
        let answers = self.answers.each_ref().map(|count| count.load(Ordering::Relaxed));
        Figures {
            requests: answers.iter().sum(),
            errors: answers[3] + answers[4],
            received: self.sent.load(Ordering::Relaxed),
            sent: self.received.load(Ordering::Relaxed),
        }
    }
}

impl ThreadCounters {
    /// An answer of the sidecar instead of a backend's.
    pub(super) fn refused(&self, cause: Cause, status: StatusCode) {
        self.own[class(status.as_u16())].fetch_add(1, Ordering::Relaxed);
        self.refused[cause as usize].fetch_add(1, Ordering::Relaxed);
    }
}

fn class(status: u16) -> usize {
    usize::from(status / 100).clamp(1, 5) - 1
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Labels of a series: listener, and where there is one, site, backend and class of the status code.
type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A counter or gauge of each backend.
pub(super) struct PerBackend {
    pub(super) metric: &'static Metric,
    /// None where there is nothing to say yet.
    value: fn(&Backend<Counters>) -> Option<Value>,
}

enum Value {
    Count(u64),
    Seconds(f64),
}

pub(super) static PER_BACKEND: [PerBackend; 13] = [
    PerBackend {
        metric: &families::RETRIES,
        value: |backend| Some(Value::Count(backend.detail.retries.load(Ordering::Relaxed))),
    },
    PerBackend {
        metric: &families::CONNECT_FAILURES,
        value: |backend| Some(Value::Count(backend.detail.connect_failures.load(Ordering::Relaxed))),
    },
    PerBackend {
        metric: &families::RESUMED,
        value: |backend| Some(Value::Count(backend.detail.resumed.load(Ordering::Relaxed))),
    },
    PerBackend {
        metric: &families::SENT,
        value: |backend| Some(Value::Count(backend.detail.sent.load(Ordering::Relaxed))),
    },
    PerBackend {
        metric: &families::RECEIVED,
        value: |backend| Some(Value::Count(backend.detail.received.load(Ordering::Relaxed))),
    },
    PerBackend {
        metric: &families::BACKEND_IN_FLIGHT,
        value: |backend| Some(Value::Count(backend.outstanding() as u64)),
    },
    PerBackend {
        metric: &families::UP,
        value: |backend| match backend.condition() {
            Condition::Unknown | Condition::Awaited => None,
            Condition::Up => Some(Value::Count(1)),
            Condition::Down(_) => Some(Value::Count(0)),
        },
    },
    PerBackend { metric: &families::EJECTIONS, value: |backend| Some(Value::Count(backend.ejections())) },
    PerBackend {
        metric: &families::EJECTED,
        value: |backend| Some(Value::Count(u64::from(backend.is_ejected()))),
    },
    PerBackend {
        metric: &families::WEIGHT,
        value: |backend| Some(Value::Count(u64::from(backend.weight()))),
    },
    PerBackend {
        metric: &families::BACKEND_CONNECTIONS,
        value: |backend| Some(Value::Count(backend.connections() as u64)),
    },
    PerBackend {
        metric: &families::DOWN,
        value: |backend| Some(Value::Seconds(backend.downtime().as_secs_f64())),
    },
    PerBackend {
        metric: &families::LAST_DOWN,
        value: |backend| backend.last_downtime().map(|time| Value::Seconds(time.as_secs_f64())),
    },
];

impl Collector for Metrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let listeners = self.listeners.all();
        let routes: Vec<_> = listeners.iter().map(|listener| listener.route.borrow().clone()).collect();
        let named: Vec<_> = listeners
            .iter()
            .zip(&routes)
            .flat_map(|(listener, route)| {
                route.backends.iter().map(|backend| Labelled {
                    listener: &listener.name,
                    address: backend.address.to_string(),
                    backend,
                })
            })
            .collect();
        encode_answers(&mut encoder, &named)?;
        for PerBackend { metric, value } in &PER_BACKEND {
            let mut family = metric.encode(&mut encoder)?;
            for named in &named {
                let Some(value) = value(named.backend) else { continue };
                let labels = named.labels();
                let mut series = family.encode_family(&labels)?;
                match (metric.kind, value) {
                    (MetricType::Gauge, Value::Count(count)) => series.encode_gauge(&count)?,
                    (MetricType::Gauge, Value::Seconds(seconds)) => series.encode_gauge(&seconds)?,
                    (_, Value::Count(count)) => series.encode_counter::<NoLabelSet, _, u64>(&count, None)?,
                    (_, Value::Seconds(seconds)) => {
                        series.encode_counter::<NoLabelSet, _, u64>(&seconds, None)?;
                    }
                }
            }
        }
        encode_listeners(&mut encoder, &listeners)
    }
}

struct Labelled<'a> {
    listener: &'a str,
    address: String,
    backend: &'a Backend<Counters>,
}

impl Labelled<'_> {
    fn labels(&self) -> Labels<'_> {
        vec![("listener", self.listener), ("site", &self.backend.site), ("backend", &self.address)]
    }
}

fn encode_answers(encoder: &mut DescriptorEncoder<'_>, backends: &[Labelled<'_>]) -> fmt::Result {
    let mut family = families::REQUESTS.encode(encoder)?;
    for named in backends {
        for (class, count) in CLASSES.iter().zip(&named.backend.detail.answers) {
            let mut labels = named.labels();
            labels.push(("code", class));
            let count = count.load(Ordering::Relaxed);
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    Ok(())
}

fn encode_listeners(encoder: &mut DescriptorEncoder<'_>, listeners: &[Arc<ListenerMetrics>]) -> fmt::Result {
    let mut family = families::OWN_ANSWERS.encode(encoder)?;
    for listener in listeners {
        for (index, class) in CLASSES.iter().enumerate().skip(3) {
            let count: u64 =
                listener.threads.iter().map(|thread| thread.own[index].load(Ordering::Relaxed)).sum();
            let labels: Labels<'_> = vec![("listener", &listener.name), ("code", class)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let mut family = families::REFUSED.encode(encoder)?;
    for listener in listeners {
        for cause in Cause::ALL {
            let counts =
                listener.threads.iter().map(|thread| thread.refused[cause as usize].load(Ordering::Relaxed));
            let labels: Labels<'_> = vec![("listener", &listener.name), ("cause", cause.name())];
            family
                .encode_family(&labels)?
                .encode_counter::<NoLabelSet, _, u64>(&counts.sum::<u64>(), None)?;
        }
    }
    let mut family = families::RATE_LIMITED.encode(encoder)?;
    for listener in listeners {
        let gate = listener.gate.borrow().clone();
        for (limit, refused) in gate.refused() {
            let labels: Labels<'_> = vec![("listener", &listener.name), ("limit", limit)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&refused, None)?;
        }
    }
    encode_gauge(encoder, listeners, &families::CONNECTIONS, |thread| {
        thread.connections.load(Ordering::Relaxed)
    })?;
    encode_gauge(encoder, listeners, &families::IN_FLIGHT, |thread| thread.requests.load(Ordering::Relaxed))?;
    let mut family = families::DURATION.encode(encoder)?;
    for listener in listeners {
        let totals = Histogram::total(listener.threads.iter().map(|thread| &thread.durations));
        family.encode_family(&labels(listener))?.encode_histogram::<NoLabelSet>(
            totals.seconds,
            totals.count,
            &totals.buckets,
            None,
        )?;
    }
    Ok(())
}

fn encode_gauge(
    encoder: &mut DescriptorEncoder<'_>,
    listeners: &[Arc<ListenerMetrics>],
    metric: &Metric,
    value: fn(&ThreadCounters) -> usize,
) -> fmt::Result {
    let mut family = metric.encode(encoder)?;
    for listener in listeners {
        let sum: usize = listener.threads.iter().map(|thread| value(thread)).sum();
        family.encode_family(&labels(listener))?.encode_gauge(&sum)?;
    }
    Ok(())
}

fn labels(listener: &ListenerMetrics) -> Labels<'_> {
    vec![("listener", &listener.name)]
}

impl fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Metrics").finish_non_exhaustive()
    }
}
