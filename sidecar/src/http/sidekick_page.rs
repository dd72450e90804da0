//! The counters of a listener's backends under the names that MinIO's sidekick gave them. Checks are not counted, and
//! backends of all sites are there.

use std::sync::Arc;

use crds::metrics::Metric;
use prometheus_client::{
    encoding::text::encode,
    metrics::{MetricType, counter::Counter, family::Family},
    registry::Registry,
};

use super::metrics::Counters;
use crate::balance::Backend;

type ByEndpoint = Family<[(&'static str, String); 1], Counter>;

/// What sidekick counts of one backend.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) requests: u64,
    /// Answered with 400 or above.
    pub(super) errors: u64,
    /// Bytes of request bodies.
    pub(super) received: u64,
    /// Bytes of response bodies.
    pub(super) sent: u64,
}

/// In sidekick's names, for the dashboards that its users have.
const fn family(name: &'static str, help: &'static str) -> Metric {
    Metric {
        name,
        kind: MetricType::Counter,
        labels: &["endpoint"],
        help,
        look: "On dashboards made for sidekick",
    }
}

pub(super) static FAMILIES: [&Metric; 4] = [
    &family("sidekick_requests", "Requests that the backend has answered"),
    &family("sidekick_errors", "Requests that the backend has answered with 400 or above"),
    &family("sidekick_rx_bytes", "Bytes of request bodies received for the backend"),
    &family("sidekick_tx_bytes", "Bytes of response bodies sent from the backend"),
];

pub(super) fn page(backends: &[Arc<Backend<Counters>>]) -> String {
    render(backends.iter().map(|backend| (url(backend), backend.detail.figures())))
}

fn render(backends: impl Iterator<Item = (String, Figures)>) -> String {
    let mut registry = Registry::default();
    let [requests, errors, received, sent] = FAMILIES.map(|metric| {
        let family = ByEndpoint::default();
        metric.register(&mut registry, family.clone());
        family
    });
    for (url, figures) in backends {
        let endpoint = [("endpoint", url)];
        requests.get_or_create(&endpoint).inc_by(figures.requests);
        errors.get_or_create(&endpoint).inc_by(figures.errors);
        received.get_or_create(&endpoint).inc_by(figures.received);
        sent.get_or_create(&endpoint).inc_by(figures.sent);
    }
    let mut page = String::new();
    // Writing to a String cannot fail.
    let _ = encode(&mut page, &registry);
    page
}

/// As it stands on the command line: all addresses of a name together are one endpoint.
fn url(backend: &Backend<Counters>) -> String {
    let scheme = if backend.tls.is_some() { "https" } else { "http" };
    match (&backend.host, backend.address.ip()) {
        (Some(host), Some(address)) => format!("{scheme}://{host}:{}", address.port()),
        _ => format!("{scheme}://{}", backend.address),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn dashboards_of_sidekick_find_their_series() {
        let counters = Counters::default();
        for status in [200, 404, 502] {
            counters.answered(status);
        }
        counters.sent.store(7, Ordering::Relaxed);
        counters.received.store(9, Ordering::Relaxed);
        let (name, other) = ("https://minio1:9000".to_owned(), "http://10.0.0.1:2".to_owned());
        let backends =
            [(name.clone(), counters.figures()), (name, counters.figures()), (other, Figures::default())];
        let page = render(backends.into_iter());
        for line in [
            "sidekick_requests_total{endpoint=\"https://minio1:9000\"} 6",
            "sidekick_errors_total{endpoint=\"https://minio1:9000\"} 4",
            "sidekick_rx_bytes_total{endpoint=\"https://minio1:9000\"} 14",
            "sidekick_tx_bytes_total{endpoint=\"https://minio1:9000\"} 18",
            "sidekick_requests_total{endpoint=\"http://10.0.0.1:2\"} 0",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
    }
}
