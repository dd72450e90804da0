//! What is measured, and how it is told.

use std::{fs, io, io::Write, path::Path, time::Duration};

use serde::Serialize;

use crate::Failure;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench/webhook.jsonl");

#[derive(Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn push(&mut self, sample: f64) {
        self.0.push(sample);
    }

    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn percentile(&mut self, percent: f64) -> f64 {
        self.0.sort_by(f64::total_cmp);
        let index = (self.0.len() as f64 * percent / 100.0).ceil() as usize;
        self.0.get(index.saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }
}

/// One line of the result file.
#[derive(Debug, Serialize)]
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    ours: f64,
    peer: Option<&'static str>,
    peer_value: Option<f64>,
    ratio: Option<f64>,
    better: &'static str,
}

impl Figure {
    /// For the reader alone.
    pub(crate) fn value(name: &str, unit: &'static str, ours: f64) -> Self {
        Self {
            name: format!("webhook, {name}"),
            unit,
            ours,
            peer: None,
            peer_value: None,
            ratio: None,
            better: "lower",
        }
    }

    /// Beside the floor of the same run.
    pub(crate) fn beside(name: &str, unit: &'static str, ours: f64, floor: f64) -> Self {
        Self {
            peer: Some("floor"),
            peer_value: Some(floor),
            ratio: Some(ours / floor),
            ..Self::value(name, unit, ours)
        }
    }

    /// Beside what is to be reached.
    pub(crate) fn reach(name: &str, unit: &'static str, ours: f64, reach: f64) -> Self {
        Self { peer: Some("reach"), ..Self::beside(name, unit, ours, reach) }
    }

    pub(crate) fn higher_is_better(self) -> Self {
        Self { better: "higher", ..self }
    }
}

pub(crate) fn print(figures: &[Figure]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "{:<48} {:>10} {:<5} {:>8} {:>10} {:>7}",
        "what", "ours", "unit", "peer", "peer's", "ratio"
    )?;
    for Figure { name, unit, ours, peer, peer_value, ratio, .. } in figures {
        let number = |value: &Option<f64>, decimals| {
            value.map(|value| format!("{value:.decimals$}")).unwrap_or_default()
        };
        let (peer, value, ratio) = (peer.unwrap_or_default(), number(peer_value, 1), number(ratio, 2));
        writeln!(out, "{name:<48} {ours:>10.1} {unit:<5} {peer:>8} {value:>10} {ratio:>7}")?;
    }
    Ok(())
}

pub(crate) fn write(figures: &[Figure]) -> Result<(), Failure> {
    let file = Path::new(FILE);
    if let Some(directory) = file.parent() {
        fs::create_dir_all(directory)?;
    }
    let mut text = String::new();
    for figure in figures {
        text.push_str(&serde_json::to_string(figure)?);
        text.push('\n');
    }
    Ok(fs::write(file, text)?)
}

/// CPU time that a process has used, to the nanosecond.
pub(crate) fn cpu(process: u32) -> Result<Duration, Failure> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{process}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        let nanoseconds: u64 = text.split_whitespace().next().ok_or("an empty schedstat")?.parse()?;
        total += nanoseconds;
    }
    Ok(Duration::from_nanos(total))
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident(process: u32) -> Result<f64, Failure> {
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: f64 = line.split_whitespace().next().ok_or("an empty VmRSS")?.parse()?;
    Ok(kibibytes / 1024.0)
}
