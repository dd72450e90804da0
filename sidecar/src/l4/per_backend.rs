//! Series of each backend of each TCP or UDP listener. A backend that has gone takes its series with it.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crds::metrics::Metric;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

use crate::balance::{Backend, Condition, Route};

/// Names the backends that are of no route.
pub const ALL: &str = "all";

/// Labels of a series.
pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;

/// A counter or gauge of each backend. `D` is what the protocol counts.
pub(super) struct PerBackend<D: 'static> {
    pub(super) metric: &'static Metric,
    /// None where there is nothing to say yet.
    pub(super) value: fn(&Backend<D>) -> Option<f64>,
}

pub(super) fn count(value: &AtomicU64) -> Option<f64> {
    Some(value.load(Ordering::Relaxed) as f64)
}

pub(super) fn up<D>(backend: &Backend<D>) -> Option<f64> {
    match backend.condition() {
        Condition::Unknown | Condition::Awaited => None,
        Condition::Up => Some(1.0),
        Condition::Down(_) => Some(0.0),
    }
}

pub(super) fn outstanding<D>(backend: &Backend<D>) -> Option<f64> {
    Some(backend.outstanding() as f64)
}

pub(super) fn ejections<D>(backend: &Backend<D>) -> Option<f64> {
    Some(backend.ejections() as f64)
}

pub(super) fn ejected<D>(backend: &Backend<D>) -> Option<f64> {
    Some(f64::from(u8::from(backend.is_ejected())))
}

pub(super) fn weight<D>(backend: &Backend<D>) -> Option<f64> {
    Some(f64::from(backend.weight()))
}

pub(super) fn down<D>(backend: &Backend<D>) -> Option<f64> {
    Some(backend.downtime().as_secs_f64())
}

/// Writes all families of all listeners, which come by name.
pub(super) fn encode<D>(
    encoder: &mut DescriptorEncoder<'_>,
    families: &[PerBackend<D>],
    listeners: &[(&str, Arc<Route<D>>)],
) -> fmt::Result {
    for PerBackend { metric, value } in families {
        let mut family = metric.encode(encoder)?;
        for (name, route) in listeners {
            for backend in &route.backends {
                let Some(value) = value(backend) else { continue };
                let address = backend.address.to_string();
                let mut labels: Labels<'_> = vec![("listener", *name), ("backend", &address)];
                if &*backend.site != ALL {
                    labels.push(("route", &backend.site));
                }
                let mut series = family.encode_family(&labels)?;
                match metric.kind {
                    MetricType::Counter => series.encode_counter::<NoLabelSet, _, u64>(&value, None)?,
                    _ => series.encode_gauge(&value)?,
                }
            }
        }
    }
    Ok(())
}
