//! Samples of one moment -> what they say of listeners, sites and backends. Pure. A series that an older or newer sidecar
//! does not have is zero or unknown, never an error.

use super::exposition::{ExpositionError, Sample, samples};

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
                let Some(listener) =
                    sample.label("listener").filter(|_| sample.name.starts_with("sidecar_http_"))
                else {
                    return;
                };
                let listener = find(&mut self.listeners, listener, |known| &mut known.name);
                match (sample.label("site"), sample.label("backend")) {
                    (Some(site), Some(backend)) => {
                        let site = find(&mut listener.sites, site, |known| &mut known.name);
                        find(&mut site.backends, backend, |known| &mut known.address).take_in(sample);
                    }
                    _ => listener.take_in(sample),
                }
            }
        }
    }
}

impl ListenerReading {
    fn take_in(&mut self, sample: &Sample<'_>) {
        let value = count(sample);
        match sample.name {
            "sidecar_http_connections" => self.connections = value,
            "sidecar_http_requests_in_flight" => self.in_flight = value,
            "sidecar_http_own_answers_total" => {
                self.own_answers = self.own_answers.saturating_add(value);
                if is_failure(sample) {
                    self.own_failures = self.own_failures.saturating_add(value);
                }
            }
            "sidecar_http_request_duration_seconds_bucket" => {
                if let Some(bound) = sample.label("le").and_then(|bound| bound.parse().ok()) {
                    self.durations.push((bound, value));
                }
            }
            _ => {}
        }
    }
}

impl BackendReading {
    fn take_in(&mut self, sample: &Sample<'_>) {
        let value = count(sample);
        match sample.name {
            "sidecar_http_requests_total" => {
                self.answers = self.answers.saturating_add(value);
                if is_failure(sample) {
                    self.errors = self.errors.saturating_add(value);
                }
            }
            "sidecar_http_retries_total" => self.retries = value,
            "sidecar_http_connect_failures_total" => self.connect_failures = value,
            "sidecar_http_sent_bytes_total" => self.sent = value,
            "sidecar_http_received_bytes_total" => self.received = value,
            "sidecar_http_backend_requests_in_flight" => self.in_flight = value,
            "sidecar_http_backend_ejected" => self.ejected = value > 0,
            "sidecar_http_backend_up" => self.up = Some(value > 0),
            "sidecar_http_backend_down_seconds_total" => self.down_seconds = Some(sample.value),
            "sidecar_http_backend_last_down_seconds" => self.last_down_seconds = Some(sample.value),
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
