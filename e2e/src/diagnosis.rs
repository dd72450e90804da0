//! What one would look at next when a scenario has failed: pods, policies, events and logs.

use std::fmt::Write;

use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::ListParams};

use crate::{Namespace, operator};

const LINES: &str = "--tail=15";
const MAX_EVENTS: usize = 25;

/// The best that can be learned; what cannot be is left out.
pub(crate) async fn of(namespace: &Namespace) -> String {
    let mut text = format!("the scenario in namespace {} failed; what it looked like:\n", namespace.name);
    let here: &[&[&str]] = &[
        &["get", "pods,deployments,jobs", "-o", "wide"],
        &[
            "get",
            "sidecarpolicies",
            "-o",
            r#"jsonpath={range .items[*]}{.metadata.name} {.status}{"\n"}{end}"#,
        ],
        &[
            "get",
            "configmaps",
            "-l",
            "sidecar.io/policy",
            "-o",
            r#"jsonpath={range .items[*]}{.data}{"\n"}{end}"#,
        ],
    ];
    for arguments in here {
        said(&mut text, namespace, arguments, usize::MAX).await;
    }
    said(&mut text, namespace, &["get", "events", "--sort-by=.lastTimestamp"], MAX_EVENTS).await;
    let pods =
        namespace.api::<Pod>().list(&ListParams::default()).await.map(|list| list.items).unwrap_or_default();
    for pod in pods {
        said(
            &mut text,
            namespace,
            &["logs", &pod.name_any(), "--all-containers", "--prefix", LINES],
            usize::MAX,
        )
        .await;
    }
    let log = ["logs", "-n", operator::NAMESPACE, "-l", operator::SELECTOR, "--prefix", LINES];
    said(&mut text, namespace, &log, usize::MAX).await;
    text
}

/// The last lines of what kubectl says.
async fn said(text: &mut String, namespace: &Namespace, arguments: &[&str], lines: usize) {
    if let Ok(output) = namespace.kubectl(arguments, "").await {
        let all: Vec<&str> = output.stdout.lines().chain(output.stderr.lines()).collect();
        let last = &all[all.len().saturating_sub(lines)..];
        // Writing to a String does not fail.
        let _ = writeln!(text, "--- kubectl {}\n{}", arguments.join(" "), last.join("\n"));
    }
}
