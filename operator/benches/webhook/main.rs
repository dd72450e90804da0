//! The webhook's figures: in process, and over TLS at 500 pods a second in a process of its own, beside a floor: the same
//! listener with an answer that is made already. Prints a table and writes `target/bench/webhook.jsonl`.
//!
//! `cargo bench -p operator --profile release --bench webhook`. Runs of floor and webhook alternate, so that a neighbour
//! on the machine harms both alike.

mod figures;
mod load;
mod review;
mod server;

use std::{env, error::Error, time::Duration};

use figures::{Figure, Samples};
use server::{Child, Kind};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Why a benchmark ends early.
type Failure = Box<dyn Error + Send + Sync>;

const IN_PROCESS: usize = 20_000;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const RATE: u32 = 500;

fn main() -> Result<(), Failure> {
    if let Some(kind) = Kind::asked_for() {
        return server::serve(kind);
    }
    if !env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut figures = runtime.block_on(in_process())?;
    figures.extend(runtime.block_on(over_tls())?);
    figures::print(&figures)?;
    figures::write(&figures)
}

/// The router alone: bytes in, bytes out, one thread.
async fn in_process() -> Result<Vec<Figure>, Failure> {
    let router = server::router(Kind::Webhook);
    let body = review::bytes();
    for _ in 0..IN_PROCESS / 10 {
        load::in_process(&router, &body).await?;
    }
    let (mut samples, cpu) = (Samples::default(), figures::cpu(std::process::id())?);
    for _ in 0..IN_PROCESS {
        samples.push(load::in_process(&router, &body).await?);
    }
    let cpu = (figures::cpu(std::process::id())? - cpu).as_secs_f64() * 1e6 / IN_PROCESS as f64;
    Ok(vec![
        Figure::value("in process: latency p50", "us", samples.percentile(50.0)),
        Figure::value("in process: latency p99", "us", samples.percentile(99.0)),
        Figure::reach("in process: CPU an admission", "us", cpu, 100.0),
    ])
}

#[derive(Default)]
struct Measured {
    samples: Samples,
    cpu: Duration,
    rates: Samples,
}

async fn over_tls() -> Result<Vec<Figure>, Failure> {
    let children = [Child::start(Kind::Floor)?, Child::start(Kind::Webhook)?];
    let mut measured = [Measured::default(), Measured::default()];
    for child in &children {
        load::paced(child, RATE, Duration::from_secs(1)).await?;
    }
    for _ in 0..ROUNDS {
        for (child, measured) in children.iter().zip(&mut measured) {
            let before = figures::cpu(child.id())?;
            measured.samples.extend(load::paced(child, RATE, ROUND).await?);
            measured.cpu += figures::cpu(child.id())? - before;
        }
    }
    let resident = [figures::resident(children[0].id())?, figures::resident(children[1].id())?];
    for _ in 0..ROUNDS {
        for (child, measured) in children.iter().zip(&mut measured) {
            measured.rates.push(load::unpaced(child, Duration::from_secs(1)).await?);
        }
    }
    let [floor, webhook] = &mut measured;
    let cpu = |measured: &Measured| measured.cpu.as_secs_f64() * 1e6 / measured.samples.len() as f64;
    let (floor_cpu, webhook_cpu) = (cpu(floor), cpu(webhook));
    let mut beside = |name, percentile| {
        Figure::beside(
            name,
            "us",
            webhook.samples.percentile(percentile),
            floor.samples.percentile(percentile),
        )
    };
    let (median, tail) =
        (beside("TLS, 500 pods/s: latency p50", 50.0), beside("TLS, 500 pods/s: latency p99", 99.0));
    let slowest = webhook.samples.percentile(99.0);
    Ok(vec![
        median,
        tail,
        Figure::reach("TLS, 500 pods/s: latency p99", "us", slowest, 2_000.0),
        Figure::beside("TLS, 500 pods/s: CPU an admission", "us", webhook_cpu, floor_cpu),
        Figure::reach("TLS, 500 pods/s: CPU an admission", "us", webhook_cpu, 100.0),
        Figure::beside("TLS, 500 pods/s: resident memory", "MiB", resident[1], resident[0]),
        Figure::reach("TLS, 500 pods/s: resident memory", "MiB", resident[1], 30e6 / f64::from(1 << 20)),
        Figure::beside(
            "TLS, as fast as it goes: pods",
            "1/s",
            webhook.rates.percentile(50.0),
            floor.rates.percentile(50.0),
        )
        .higher_is_better(),
    ])
}
