//! The program `workload`: what the test pods run. Each part is small, so that a failure speaks of the sidecar.
//!
//! `serve` answers with the pod's name, `load` counts what it gets, `get` asks once, `sleep` waits, `webhook` changes
//! pods after the operator did.

mod get;
mod load;
mod report;
mod serve;
mod server;
mod webhook;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Parser;
use crds::units::Duration;
pub use report::{Failure, Report};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Server, client and test webhook for demonstrations and tests of the sidecar.
#[derive(Debug, Parser)]
#[command(name = "workload", version)]
pub enum Workload {
    /// Answer every GET with the name of the pod.
    Serve(serve::Serve),
    /// Send GETs and count the answers; the counts go to stdout as JSON at the end.
    Load(load::Load),
    /// Send one GET and print status and body; fails unless the status is 2xx.
    Get(get::Get),
    /// Wait for a signal, or for the time given.
    Sleep {
        /// End by itself after this time.
        duration: Option<Duration>,
    },
    /// Serve a mutating webhook that changes pods.
    Webhook(webhook::Webhook),
}

impl Workload {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let stop = stop_on_signal()?;
        match self {
            Self::Serve(serve) => serve.run(stop).await.map(|()| ExitCode::SUCCESS),
            Self::Load(load) => load.run(stop).await,
            Self::Get(get) => get.run().await,
            Self::Sleep { duration: None } => {
                stop.cancelled().await;
                Ok(ExitCode::SUCCESS)
            }
            Self::Sleep { duration: Some(duration) } => {
                // Either end is a good one.
                let _ = tokio::time::timeout(duration.as_std(), stop.cancelled()).await;
                Ok(ExitCode::SUCCESS)
            }
            Self::Webhook(webhook) => webhook.run(stop).await.map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Cancelled by SIGTERM and SIGINT, which a container's first process must handle to obey them at all.
fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let stop = CancellationToken::new();
    let cancel = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        cancel.cancel();
    });
    Ok(stop)
}

/// Progress goes to stderr; a reader that went away is no reason to stop.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "workload: {text}");
}

/// Results go to stdout.
fn print(text: &str) -> anyhow::Result<()> {
    writeln!(io::stdout(), "{text}").context("cannot write to stdout")
}
