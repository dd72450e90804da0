//! Samples of one moment -> what they say of listeners, sites and backends. Pure. A series that an older or newer sidecar
//! does not have is zero or unknown, never an error.

use serde::Serialize;

use super::exposition::{ExpositionError, Sample, samples};

/// The one backend set of a listener that has no sites.
const ALL: &str = "all";

/// Causes of ends that applications choose.
const OWN_WAYS: [&str; 3] = ["ClientBroke", "Handshake", "Idle"];

/// What a listener speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    #[default]
    Http,
    Tcp,
    Udp,
}

/// What a sidecar has counted by one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Reading {
    pub(super) version: Option<String>,
    pub(super) started: bool,
    /// In the order of the configuration.
    pub(super) listeners: Vec<ListenerReading>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ListenerReading {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) connections: u64,
    pub(super) in_flight: u64,
    /// Answers of the sidecar itself, and those of them that blame no client.
    pub(super) own_answers: u64,
    pub(super) own_failures: u64,
    pub(super) durations: Buckets,
    /// In failover order.
    pub(super) sites: Vec<SiteReading>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct SiteReading {
    pub(super) name: String,
    pub(super) backends: Vec<BackendReading>,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct BackendReading {
    pub(super) address: String,
    /// None before the first check.
    pub(super) up: Option<bool>,
    /// Out of traffic because requests failed in a row.
    pub(super) ejected: bool,
    pub(super) in_flight: u64,
    pub(super) answers: u64,
    /// Answers of class 5xx.
    pub(super) errors: u64,
    pub(super) connect_failures: u64,
    pub(super) retries: u64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// None where the sidecar does not tell.
    pub(super) down_seconds: Option<f64>,
    pub(super) last_down_seconds: Option<f64>,
}

/// Upper bounds in seconds, and how many durations were at or below each.
pub(super) type Buckets = Vec<(f64, u64)>;

impl Reading {
    pub(super) fn parse(page: &str) -> Result<Self, ExpositionError> {
        let mut reading = Self::default();
        for sample in samples(page)? {
            reading.take_in(&sample);
        }
        Ok(reading)
    }

    fn take_in(&mut self, sample: &Sample<'_>) {
        match sample.name {
            "sidecar_build_info" => self.version = sample.label("version").map(str::to_owned),
            "sidecar_started" => self.started = sample.value > 0.0,
            _ => {
                let Some((kind, what)) = Kind::of(sample.name) else { return };
                let Some(listener) = sample.label("listener") else { return };
                let listener = find(&mut self.listeners, listener, |known| &mut known.name);
                listener.kind = kind;
                match (sample.label("site").or(sample.label("route")), sample.label("backend")) {
                    (site, Some(backend)) => {
                        let site = find(&mut listener.sites, site.unwrap_or(ALL), |known| &mut known.name);
                        find(&mut site.backends, backend, |known| &mut known.address).take_in(what, sample);
                    }
                    _ => listener.take_in(what, sample),
                }
            }
        }
    }
}

impl Kind {
    /// Of a series of a listener: its kind, and what the series is about.
    fn of(name: &str) -> Option<(Self, &str)> {
        let kinds = [("http_", Self::Http), ("tcp_", Self::Tcp), ("udp_", Self::Udp)];
        let name = name.strip_prefix("sidecar_")?;
        kinds.into_iter().find_map(|(prefix, kind)| Some((kind, name.strip_prefix(prefix)?)))
    }
}

impl ListenerReading {
    fn take_in(&mut self, what: &str, sample: &Sample<'_>) {
        let value = count(sample);
        match what {
            "connections" | "sessions" => {
                self.connections = value;
                if self.kind != Kind::Http {
                    self.in_flight = value;
                }
            }
            "requests_in_flight" => self.in_flight = value,
            // How applications end their connections is no failure.
            "failed_total" if !sample.label("cause").is_some_and(|cause| OWN_WAYS.contains(&cause)) => {
                self.own_failures = self.own_failures.saturating_add(value);
            }
            "dropped_total" => self.own_failures = self.own_failures.saturating_add(value),
            "own_answers_total" => {
                self.own_answers = self.own_answers.saturating_add(value);
                if is_failure(sample) {
                    self.own_failures = self.own_failures.saturating_add(value);
                }
            }
            "request_duration_seconds_bucket" => {
                if let Some(bound) = sample.label("le").and_then(|bound| bound.parse().ok()) {
                    self.durations.push((bound, value));
                }
            }
            _ => {}
        }
    }
}

impl BackendReading {
    fn take_in(&mut self, what: &str, sample: &Sample<'_>) {
        let value = count(sample);
        match what {
            "backend_connected_total" | "sent_datagrams_total" => self.answers = value,
            "requests_total" => {
                self.answers = self.answers.saturating_add(value);
                if is_failure(sample) {
                    self.errors = self.errors.saturating_add(value);
                }
            }
            "retries_total" => self.retries = value,
            "connect_failures_total" | "backend_refused_total" => self.connect_failures = value,
            "sent_bytes_total" => self.sent = value,
            "received_bytes_total" => self.received = value,
            "backend_requests_in_flight" | "backend_sessions" => self.in_flight = value,
            // Of HTTP, connections are kept for requests to come.
            "backend_connections" if sample.label("site").is_none() => self.in_flight = value,
            "backend_ejected" => self.ejected = value > 0,
            "backend_up" => self.up = Some(value > 0),
            "backend_down_seconds_total" => self.down_seconds = Some(sample.value),
            "backend_last_down_seconds" => self.last_down_seconds = Some(sample.value),
            _ => {}
        }
    }
}

/// The item of that name, which is added at the end if it is new.
fn find<'a, T: Default>(
    items: &'a mut Vec<T>,
    name: &str,
    named: impl Fn(&mut T) -> &mut String,
) -> &'a mut T {
    let index = items.iter_mut().position(|item| named(item) == name).unwrap_or_else(|| {
        let mut item = T::default();
        named(&mut item).push_str(name);
        items.push(item);
        items.len() - 1
    });
    &mut items[index]
}

fn is_failure(sample: &Sample<'_>) -> bool {
    sample.label("code") == Some("5xx")
}

/// Whole and not negative, as everything is that is counted here; the conversion keeps other values in range.
fn count(sample: &Sample<'_>) -> u64 {
    sample.value as u64
}
