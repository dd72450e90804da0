//! Memory, descriptors and CPU time of this process, read from /proc when someone asks.

use std::{
    fmt, fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use crds::metrics::Metric;
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// Ticks of `/proc/self/stat` in a second: fixed by the kernel's interface, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

/// All of them are without labels; the names are those that Prometheus asks of every program.
const fn family(name: &'static str, kind: MetricType, help: &'static str, look: &'static str) -> Metric {
    Metric { name, kind, labels: &[], help, look }
}

const START_TIME: Metric = family(
    "process_start_time_seconds",
    MetricType::Gauge,
    "When the process started",
    "To find restarts: the counters begin at 0 again",
);

const CPU: Metric = family(
    "process_cpu_seconds",
    MetricType::Counter,
    "CPU time of user and system",
    "Its rate is the number of busy cores: when it comes near the container's limit, or near the number of threads, more of them help",
);

const MEMORY: Metric = family(
    "process_resident_memory_bytes",
    MetricType::Gauge,
    "Resident memory",
    "Against the container's memory limit; it follows bodies under way and TLS connections",
);

const THREADS: Metric =
    family("process_threads", MetricType::Gauge, "Threads", "Hardly ever: it does not grow with load");

const DESCRIPTORS: Metric = family(
    "process_open_fds",
    MetricType::Gauge,
    "Open file descriptors",
    "Against `process_max_fds`: each connection is one, and without a free one none is accepted",
);

const MAX_DESCRIPTORS: Metric = family(
    "process_max_fds",
    MetricType::Gauge,
    "Most file descriptors that may be open",
    "Beside `process_open_fds`",
);

pub(super) const FAMILIES: [&Metric; 6] =
    [&CPU, &MEMORY, &DESCRIPTORS, &MAX_DESCRIPTORS, &THREADS, &START_TIME];

pub fn register(registry: &mut Registry) {
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    registry.register_collector(Box::new(Process { started }));
}

#[derive(Debug)]
struct Process {
    /// Time of registration, which is the first thing that the process does.
    started: Duration,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        gauge(&mut encoder, &START_TIME, self.started.as_secs_f64())?;
        if let Some(seconds) = cpu_seconds() {
            ConstCounter::new(seconds).encode(CPU.encode(&mut encoder)?)?;
        }
        if let Some(bytes) = status_kibibytes("VmRSS:") {
            gauge(&mut encoder, &MEMORY, bytes * 1024.0)?;
        }
        if let Some(count) = status_kibibytes("Threads:") {
            gauge(&mut encoder, &THREADS, count)?;
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            gauge(&mut encoder, &DESCRIPTORS, descriptors.count() as f64)?;
        }
        match max_descriptors() {
            Some(limit) => gauge(&mut encoder, &MAX_DESCRIPTORS, limit),
            None => Ok(()),
        }
    }
}

fn gauge(encoder: &mut DescriptorEncoder, metric: &Metric, value: f64) -> fmt::Result {
    ConstGauge::new(value).encode(metric.encode(encoder)?)
}

fn cpu_seconds() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name in parentheses may hold spaces; utime and stime are the 14th and 15th field.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

fn status_kibibytes(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn max_descriptors() -> Option<f64> {
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
