//! Server, client and test webhook for the demonstration and the scenarios: see [`e2e::workload`].

use std::process::ExitCode;

use clap::Parser;
use e2e::workload::Workload;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    Workload::parse().run().await
}
