//! Two readings -> totals and rates. Pure; it is what `-o json` prints, so that its fields stay as they are.

use std::time::Duration;

use serde::Serialize;

use super::reading::{BackendReading, Buckets, Kind, ListenerReading, Reading, SiteReading};

/// What a sidecar does, between two readings.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The sidecar's release.
    pub version: Option<String>,
    /// Whether it has loaded its configuration and opened its listeners.
    pub started: bool,
    /// Seconds that rates and latencies are taken over; null without an earlier reading, and then they are null too.
    pub seconds: Option<f64>,
    /// Of all listeners.
    pub totals: Traffic,
    pub listeners: Vec<ListenerReport>,
}

/// What applications see of a listener: a request that failed at one backend and was answered by another is no failure.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerReport {
    pub name: String,
    pub kind: Kind,
    /// Connections of clients open now; sessions, for UDP.
    pub connections: u64,
    #[serde(flatten)]
    pub traffic: Traffic,
    /// In failover order.
    pub sites: Vec<SiteReport>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteReport {
    pub name: String,
    pub state: SiteState,
    pub backends: Vec<BackendReport>,
}

/// What a site is for, by the rule that the first one with a live backend takes all traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SiteState {
    Serving,
    Standby,
    Down,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendReport {
    pub address: String,
    pub state: BackendState,
    #[serde(flatten)]
    pub traffic: Traffic,
    /// Seconds that it has been down in all; null where the sidecar does not tell.
    pub down_seconds: Option<f64>,
    /// Seconds that it was down the last time, or has been down now.
    pub last_down_seconds: Option<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendState {
    /// It was not checked yet, and takes traffic.
    Unchecked,
    Up,
    /// Its checks are good, and requests to it failed in a row: it is left alone for a while.
    Ejected,
    Down,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// Requests answered; connections opened to backends, for TCP; datagrams sent to them, for UDP.
    pub requests: Count,
    /// Of a listener: requests answered with 5xx, connections that came to nothing, datagrams dropped. Of a backend: requests
    /// answered with 5xx, and connects that failed.
    pub failures: Count,
    /// Requests that were sent again because a backend failed them.
    pub retries: Count,
    /// Bytes of request bodies, towards the backends.
    pub sent_bytes: Count,
    /// Bytes of response bodies, from the backends.
    pub received_bytes: Count,
    /// Requests being served now.
    pub in_flight: u64,
    /// Null where nothing was measured.
    pub latency: Option<Latency>,
}

/// A counter and how fast it grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Count {
    pub total: u64,
    pub per_second: Option<f64>,
}

/// Seconds from a request's head to the last byte of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

impl Report {
    /// `earlier`: another reading of the same sidecar, and the time from it to this one.
    pub(super) fn new(earlier: Option<(&Reading, Duration)>, later: &Reading) -> Self {
        let seconds = earlier.map(|(_, elapsed)| elapsed.as_secs_f64()).filter(|seconds| *seconds > 0.0);
        let known = |name: &str| earlier?.0.listeners.iter().find(|listener| listener.name == name);
        let mut durations = Buckets::new();
        let listeners: Vec<ListenerReport> = later
            .listeners
            .iter()
            .map(|listener| {
                let new = growth(known(&listener.name).map(|known| &known.durations), &listener.durations);
                add(&mut durations, &new);
                ListenerReport::new(known(&listener.name), listener, &new, seconds)
            })
            .collect();
        let mut totals = sum(listeners.iter().map(|listener| &listener.traffic), seconds);
        totals.latency = seconds.and_then(|_| Latency::of(&durations));
        Self { version: later.version.clone(), started: later.started, seconds, totals, listeners }
    }
}

impl ListenerReport {
    fn new(
        earlier: Option<&ListenerReading>,
        later: &ListenerReading,
        durations: &Buckets,
        seconds: Option<f64>,
    ) -> Self {
        let before = |site: &str, backend: &str| {
            let site = earlier?.sites.iter().find(|known| known.name == site)?;
            site.backends.iter().find(|known| known.address == backend)
        };
        let mut taken = false;
        let sites: Vec<SiteReport> = later
            .sites
            .iter()
            .map(|site| {
                let state = SiteState::of(site, taken);
                taken |= state == SiteState::Serving;
                let backend = |backend: &BackendReading| {
                    BackendReport::new(before(&site.name, &backend.address), backend, seconds)
                };
                SiteReport {
                    name: site.name.clone(),
                    state,
                    backends: site.backends.iter().map(backend).collect(),
                }
            })
            .collect();
        // By backend, since a backend that has gone takes its counts with it.
        let backends = sites.iter().flat_map(|site| &site.backends);
        let mut traffic = sum(backends.map(|backend| &backend.traffic), seconds);
        let own = |value: fn(&ListenerReading) -> u64| Count::new(earlier.map(value), value(later), seconds);
        traffic.requests.add(own(|listener| listener.own_answers));
        traffic.failures = own(|listener| listener.own_failures);
        for site in &later.sites {
            for backend in &site.backends {
                let before = before(&site.name, &backend.address).map(|before| before.errors);
                traffic.failures.add(Count::new(before, backend.errors, seconds));
            }
        }
        traffic.in_flight = later.in_flight;
        traffic.latency = seconds.and_then(|_| Latency::of(durations));
        Self { name: later.name.clone(), kind: later.kind, connections: later.connections, traffic, sites }
    }
}

impl SiteState {
    /// `taken`: an earlier site takes the traffic.
    fn of(site: &SiteReading, taken: bool) -> Self {
        match site.backends.iter().any(|backend| backend.up != Some(false) && !backend.ejected) {
            false => Self::Down,
            true if taken => Self::Standby,
            true => Self::Serving,
        }
    }
}

impl BackendReport {
    fn new(earlier: Option<&BackendReading>, later: &BackendReading, seconds: Option<f64>) -> Self {
        let count = |value: fn(&BackendReading) -> u64| Count::new(earlier.map(value), value(later), seconds);
        let traffic = Traffic {
            requests: count(|backend| backend.answers),
            failures: count(|backend| backend.errors.saturating_add(backend.connect_failures)),
            retries: count(|backend| backend.retries),
            sent_bytes: count(|backend| backend.sent),
            received_bytes: count(|backend| backend.received),
            in_flight: later.in_flight,
            latency: None,
        };
        let state = match later.up {
            Some(false) => BackendState::Down,
            _ if later.ejected => BackendState::Ejected,
            None => BackendState::Unchecked,
            Some(true) => BackendState::Up,
        };
        Self {
            address: later.address.clone(),
            state,
            traffic,
            down_seconds: later.down_seconds,
            last_down_seconds: later.last_down_seconds,
        }
    }
}

impl Count {
    /// A counter that has fallen began anew, and so did one that was not there before.
    fn new(earlier: Option<u64>, later: u64, seconds: Option<f64>) -> Self {
        let grown = later.checked_sub(earlier.unwrap_or(0)).unwrap_or(later);
        Self { total: later, per_second: seconds.map(|seconds| grown as f64 / seconds) }
    }

    fn add(&mut self, other: Self) {
        self.total = self.total.saturating_add(other.total);
        self.per_second = self.per_second.zip(other.per_second).map(|(a, b)| a + b);
    }
}

fn sum<'a>(parts: impl Iterator<Item = &'a Traffic>, seconds: Option<f64>) -> Traffic {
    let zero = Count::new(None, 0, seconds);
    let mut sum = Traffic {
        requests: zero,
        failures: zero,
        retries: zero,
        sent_bytes: zero,
        received_bytes: zero,
        ..Traffic::default()
    };
    for part in parts {
        sum.requests.add(part.requests);
        sum.failures.add(part.failures);
        sum.retries.add(part.retries);
        sum.sent_bytes.add(part.sent_bytes);
        sum.received_bytes.add(part.received_bytes);
        sum.in_flight = sum.in_flight.saturating_add(part.in_flight);
    }
    sum
}

/// Durations that came since; all of them where the counts began anew.
fn growth(earlier: Option<&Buckets>, later: &Buckets) -> Buckets {
    let comparable = |earlier: &&Buckets| {
        earlier.len() == later.len()
            && earlier.iter().zip(later).all(|(old, new)| old.0 == new.0 && old.1 <= new.1)
    };
    match earlier.filter(comparable) {
        Some(earlier) => earlier.iter().zip(later).map(|(old, new)| (new.0, new.1 - old.1)).collect(),
        None => later.clone(),
    }
}

/// All listeners of one sidecar have the same bounds.
fn add(sum: &mut Buckets, part: &Buckets) {
    if sum.is_empty() {
        sum.clone_from(part);
    } else if sum.len() == part.len() {
        sum.iter_mut().zip(part).for_each(|(sum, part)| sum.1 = sum.1.saturating_add(part.1));
    }
}

impl Latency {
    fn of(buckets: &Buckets) -> Option<Self> {
        Some(Self { p50: quantile(buckets, 0.5)?, p99: quantile(buckets, 0.99)? })
    }
}

/// Straight between the bounds of the bucket that has it; beyond the last finite bound nothing more is known.
fn quantile(buckets: &Buckets, share: f64) -> Option<f64> {
    let all = buckets.last().map(|(_, count)| *count).filter(|count| *count > 0)?;
    let rank = share * all as f64;
    let index = buckets.iter().position(|(_, count)| *count as f64 >= rank)?;
    let (bound, count) = buckets[index];
    let (low, below) = index.checked_sub(1).map_or((0.0, 0), |before| buckets[before]);
    if !bound.is_finite() {
        return Some(low);
    }
    let within = (rank - below as f64) / (count - below).max(1) as f64;
    Some(low + (bound - low) * within)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantiles_lie_within_the_bucket_that_has_them() {
        let buckets = vec![(0.001, 0), (0.01, 50), (0.1, 100), (f64::INFINITY, 101)];
        assert_eq!(quantile(&buckets, 0.25).map(|seconds| (seconds * 1e6).round()), Some(5_545.0));
        assert_eq!(quantile(&buckets, 1.0), Some(0.1), "beyond the last bound");
        assert_eq!(quantile(&vec![(0.1, 0), (f64::INFINITY, 0)], 0.5), None);
        assert_eq!(quantile(&Buckets::new(), 0.5), None);
    }

    #[test]
    fn a_counter_that_began_anew_never_gives_a_negative_rate() {
        assert_eq!(Count::new(Some(100), 110, Some(2.0)).per_second, Some(5.0));
        assert_eq!(Count::new(Some(100), 30, Some(2.0)).per_second, Some(15.0));
        assert_eq!(Count::new(None, 30, Some(2.0)).per_second, Some(15.0));
        assert_eq!(Count::new(Some(1), 30, None).per_second, None);
    }

    #[test]
    fn a_backend_that_goes_leaves_no_burst_behind() {
        let listener = |backends: &[(&str, u64)]| {
            let backend = |&(address, answers): &(&str, u64)| BackendReading {
                address: address.to_owned(),
                answers,
                ..BackendReading::default()
            };
            let site = SiteReading { name: "s".into(), backends: backends.iter().map(backend).collect() };
            let listener =
                ListenerReading { name: "l".into(), sites: vec![site], ..ListenerReading::default() };
            Reading { listeners: vec![listener], ..Reading::default() }
        };
        let (before, after) = (listener(&[("a", 1_000_000), ("b", 50)]), listener(&[("b", 60)]));
        let report = Report::new(Some((&before, Duration::from_secs(1))), &after);
        assert_eq!(report.totals.requests, Count { total: 60, per_second: Some(10.0) });
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_outside_the_bounds(counts in prop::collection::vec(0u64..50, 1..6), share in 0.0f64..=1.0) {
            let mut sum = 0;
            let mut buckets: Buckets = counts.iter().zip(1..).map(|(count, bound)| { sum += count; (f64::from(bound), sum) }).collect();
            buckets.push((f64::INFINITY, sum + 1));
            let found = quantile(&buckets, share).unwrap();
            prop_assert!((0.0..=counts.len() as f64).contains(&found));
        }
    }
}
