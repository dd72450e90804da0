//! A client that never stops asking: workers with one kept connection each, one recorder, one report.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    process::ExitCode,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration as StdDuration, Instant},
};

use bytes::Bytes;
use clap::{Args, value_parser};
use crds::units::Duration;
use http::{Response, Uri};
use http_body_util::Full;
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use super::{
    get::Client,
    print,
    report::{Recorder, Report},
    say, server,
};

/// A refused connection fails at once: without a pause a worker would count thousands of them.
const PAUSE_AFTER_FAILURE: StdDuration = StdDuration::from_millis(50);
const PROGRESS: StdDuration = StdDuration::from_secs(10);
const LOOK_FOR_FILE: StdDuration = StdDuration::from_millis(200);

#[derive(Debug, Args)]
pub struct Load {
    /// What to ask for, as in http://127.0.0.1:9000/.
    #[arg(long)]
    url: Uri,
    /// Workers, with one connection each.
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// Requests a second by all workers together; as many as they can unless it is given.
    #[arg(long, value_parser = value_parser!(u32).range(1..))]
    rate: Option<u32>,
    /// End after this time.
    #[arg(long)]
    duration: Option<Duration>,
    /// End after so many requests.
    #[arg(long)]
    requests: Option<u64>,
    /// End once this file is there.
    #[arg(long)]
    until_file: Option<PathBuf>,
    /// Serve the report up to now, by any path, on this port.
    #[arg(long)]
    report_port: Option<u16>,
    /// Open a connection for each request.
    #[arg(long)]
    reconnect: bool,
    /// A request without an answer after this time has failed.
    #[arg(long, default_value = "10s")]
    timeout: Duration,
}

/// What the workers share.
struct Shared {
    recorder: Mutex<Recorder>,
    /// Requests that may still be sent.
    left: AtomicU64,
    stop: CancellationToken,
}

impl Shared {
    fn report(&self) -> Report {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner).report()
    }
}

impl Load {
    /// Fails when a request failed, so that a Job made of it tells.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<ExitCode> {
        let shared = Arc::new(Shared {
            recorder: Mutex::new(Recorder::new()),
            left: AtomicU64::new(self.requests.unwrap_or(u64::MAX)),
            stop,
        });
        if let Some(port) = self.report_port {
            let (listener, reported) =
                (server::listen((Ipv4Addr::UNSPECIFIED, port).into()).await?, shared.clone());
            let handler = move |_| {
                let body = serde_json::to_vec(&reported.report()).unwrap_or_default();
                async move { Response::new(Full::new(Bytes::from(body))) }
            };
            tokio::spawn(server::serve(listener, None, CancellationToken::new(), handler));
        }
        let mut workers = JoinSet::new();
        let period = self.rate.map(|rate| StdDuration::from_secs(1) * u32::from(self.concurrency) / rate);
        for _ in 0..self.concurrency {
            workers.spawn(work(
                Client::new(self.url.clone())?.reconnecting(self.reconnect),
                period,
                self.timeout.as_std(),
                shared.clone(),
            ));
        }
        let watching =
            tokio::spawn(watch(self.duration.map(Duration::as_std), self.until_file, shared.clone()));
        while workers.join_next().await.is_some() {}
        watching.abort();
        let report = shared.report();
        print(&serde_json::to_string(&report)?)?;
        Ok(if report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

async fn work(mut client: Client, period: Option<StdDuration>, limit: StdDuration, shared: Arc<Shared>) {
    let mut ticks = period.map(|period| {
        let mut ticks = interval(period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    while !shared.stop.is_cancelled() && take(&shared.left) {
        if let Some(ticks) = &mut ticks {
            ticks.tick().await;
        }
        let began = Instant::now();
        let answer = client.get(limit).await;
        let failed = answer.is_err();
        {
            let mut recorder = shared.recorder.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Ok((status, body)) => recorder.answer(status, &body, began.elapsed()),
                Err(error) => recorder.failure(format!("{error:#}")),
            }
        }
        if failed {
            sleep(PAUSE_AFTER_FAILURE).await;
        }
    }
}

fn take(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Ends the load when its time has come, and says now and then how it goes.
async fn watch(duration: Option<StdDuration>, until_file: Option<PathBuf>, shared: Arc<Shared>) {
    let began = Instant::now();
    let mut said = began;
    loop {
        sleep(duration.map_or(LOOK_FOR_FILE, |all| all.saturating_sub(began.elapsed()).min(LOOK_FOR_FILE)))
            .await;
        if said.elapsed() >= PROGRESS {
            said = Instant::now();
            let report = shared.report();
            say(&format!(
                "{} requests, {} failed, by backend {:?}",
                report.requests, report.failed, report.backends
            ));
        }
        let expired = duration.is_some_and(|all| began.elapsed() >= all);
        if expired || until_file.as_deref().is_some_and(|file| file.exists()) {
            return shared.stop.cancel();
        }
    }
}
