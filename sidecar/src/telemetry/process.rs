//! Memory, descriptors and CPU time of this process, read from /proc when someone asks.

use std::{
    fmt, fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
    registry::Registry,
};

/// Ticks of `/proc/self/stat` in a second: fixed by the kernel's interface, whatever its own clock.
const TICKS_PER_SECOND: f64 = 100.0;

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
        gauge(
            &mut encoder,
            "process_start_time_seconds",
            "When the process started",
            self.started.as_secs_f64(),
        )?;
        if let Some(seconds) = cpu_seconds() {
            let counter = ConstCounter::new(seconds);
            let metric = encoder.encode_descriptor(
                "process_cpu_seconds",
                "CPU time of user and system",
                None,
                prometheus_client::metrics::MetricType::Counter,
            )?;
            counter.encode(metric)?;
        }
        if let Some(bytes) = status_kibibytes("VmRSS:") {
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory", bytes * 1024.0)?;
        }
        if let Some(count) = status_kibibytes("Threads:") {
            gauge(&mut encoder, "process_threads", "Threads", count)?;
        }
        if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", descriptors.count() as f64)?;
        }
        match max_descriptors() {
            Some(limit) => {
                gauge(&mut encoder, "process_max_fds", "Most file descriptors that may be open", limit)
            }
            None => Ok(()),
        }
    }
}

fn gauge(encoder: &mut DescriptorEncoder, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric =
        encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Gauge)?;
    ConstGauge::new(value).encode(metric)
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
