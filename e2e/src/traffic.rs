//! Traffic through an injected sidecar: a pod that never stops asking, and what it counted.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{
    Namespace, eventually,
    manifests::{self, REPORT_PORT},
    workload::Report,
};

/// A running load.
pub struct Load<'a> {
    namespace: &'a Namespace,
    pub pod: String,
}

impl<'a> Load<'a> {
    /// Starts an opted-in pod that asks the listener at this port 100 times a second, and waits for its first answers.
    pub async fn start(namespace: &'a Namespace, pod: &str, port: u16) -> Result<Self> {
        namespace.apply(&[Self::manifest(pod, port)]).await?;
        Self::of(namespace, pod).await
    }

    /// The pod that [`start`](Self::start) applies.
    pub fn manifest(pod: &str, port: u16) -> Value {
        let (url, report_port) = (format!("http://127.0.0.1:{port}/"), REPORT_PORT.to_string());
        manifests::opted_in(manifests::pod(pod, &Self::arguments(&url, &report_port)))
    }

    pub fn arguments<'b>(url: &'b str, report_port: &'b str) -> [&'b str; 9] {
        ["load", "--url", url, "--report-port", report_port, "--rate", "100", "--concurrency", "8"]
    }

    /// The load in a pod that is there already.
    pub async fn of(namespace: &'a Namespace, pod: &str) -> Result<Self> {
        namespace.ready(pod).await?;
        let load = Self { namespace, pod: pod.to_owned() };
        let what = format!("the load in {pod} has its first answers");
        eventually(Duration::from_secs(20), &what, async || {
            Ok((load.report().await?.requests > 0).then_some(()))
        })
        .await?;
        Ok(load)
    }

    pub async fn report(&self) -> Result<Report> {
        let (status, body) = self.namespace.http_get(&self.pod, REPORT_PORT, "/").await?;
        ensure!(status == 200, "the load in {} gives no report: {status} {body}", self.pod);
        serde_json::from_str(&body).with_context(|| format!("not a report: {body}"))
    }

    /// Waits for so many more requests; gives the answers by backend among them.
    pub async fn more(&self, requests: u64) -> Result<BTreeMap<String, u64>> {
        let earlier = self.report().await?;
        let what = format!("{requests} more requests from {}", self.pod);
        eventually(Duration::from_secs(60), &what, async || {
            let report = self.report().await?;
            Ok((report.requests >= earlier.requests + requests).then(|| report.backends_since(&earlier)))
        })
        .await
    }

    /// The report after some more requests, none of which, nor of those before, has failed.
    pub async fn unharmed(&self) -> Result<Report> {
        self.more(100).await?;
        let report = self.report().await?;
        ensure!(report.failed == 0, "{} of {} requests failed: {report:?}", report.failed, report.requests);
        Ok(report)
    }
}
