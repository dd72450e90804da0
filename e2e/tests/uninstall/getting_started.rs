//! The first page that a user follows does what it says.

use anyhow::{Context, Result, ensure};
use e2e::{Operator, with_cluster_alone};
use serde_json::Value;

const PAGE: &str = include_str!("../../../docs/getting-started.md");

/// The commands of a page, in its order.
fn commands(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn the_commands_of_getting_started_work_as_written_and_fail_no_request() -> Result<()> {
    with_cluster_alone("getting-started", async |ns| {
        Operator::of(&ns.cluster).uninstall().await?;
        let output = ns.cluster.shell(&commands(PAGE)).await?.accepted()?;
        // The sidecar's log lines are JSON too, but count no requests.
        let reports = output.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let loads: Vec<Value> = reports.filter(|line| line["requests"].is_u64()).collect();
        let [balanced, rolled] = &loads[..] else {
            anyhow::bail!("two loads report, not {}: {}", loads.len(), output.stdout);
        };
        for load in [balanced, rolled] {
            ensure!(load["failed"] == 0, "requests failed: {load}");
        }
        let shares = balanced["backends"].as_object().context("a load counts by backend")?;
        ensure!(shares.len() == 3, "three backends answer: {balanced}");
        for (backend, requests) in shares {
            let requests = requests.as_u64().unwrap_or_default();
            ensure!((60..=140).contains(&requests), "{backend} answered {requests} of 300");
        }
        Ok(())
    })
    .await
}
