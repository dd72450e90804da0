//! The checks of one backend, one after another: when, with what outcome, and what that makes of its health.

use std::{future::Future, sync::Arc, time::Duration};

use crds::config::HealthCheck;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Backend, Condition,
    health::{Cause, Health, Thresholds},
};
use crate::probe::{Failure, Probe};

/// Shortest time between two checks, however often the data path asks.
const SHORTEST: Duration = Duration::from_millis(100);

/// Longest time between two checks of a backend that refuses: it may be back at any moment, and a refusal costs little.
const REFUSED: Duration = Duration::from_millis(500);

/// How far an interval may be longer or shorter, in hundredths, so that checks of many sidecars spread.
const JITTER: u64 = 10;

/// A backend's condition, or the reason for it, has changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) id: u64,
    pub(super) condition: Condition,
    /// What the last check failed with.
    pub(super) failure: Option<String>,
}

/// How backends are checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    pub(super) probe: Probe,
    interval: Duration,
    pub(super) timeout: Duration,
    thresholds: Thresholds,
}

impl From<&HealthCheck> for Schedule {
    fn from(check: &HealthCheck) -> Self {
        Self {
            probe: check.path.clone().map_or(Probe::Tcp, |path| Probe::Http { path }),
            interval: check.interval.as_std().max(SHORTEST),
            timeout: check.timeout.as_std().max(Duration::from_millis(1)),
            thresholds: Thresholds {
                healthy: check.healthy_threshold.max(1),
                unhealthy: check.unhealthy_threshold.max(1),
            },
        }
    }
}

/// Checks until it is dropped, or nobody reads the reports. `health` comes from earlier checks of the same backend.
pub(super) async fn run<D, C: Future<Output = Result<(), Failure>>>(
    backend: Arc<Backend<D>>,
    schedule: Schedule,
    check: impl Fn() -> C,
    reports: mpsc::Sender<Report>,
) {
    let mut health = Health::resumed(backend.condition());
    let mut reported = (health.condition(), None);
    loop {
        let started = Instant::now();
        let outcome = check().await;
        let cause = outcome.as_ref().copied().map_err(cause);
        health.checked(cause, backend.is_suspect(), schedule.thresholds);
        if outcome.is_ok() {
            backend.trust();
        }
        let failure =
            outcome.err().filter(|_| !health.condition().is_usable()).map(|failure| failure.to_string());
        let now = (health.condition(), failure);
        if now != reported {
            reported = now.clone();
            let report = Report { id: backend.id, condition: now.0, failure: now.1 };
            if reports.send(report).await.is_err() {
                return;
            }
        }
        let interval = match health.condition() {
            Condition::Down(Cause::Refused) => schedule.interval.min(REFUSED),
            _ => schedule.interval,
        };
        tokio::select! {
            () = sleep_until(started + jittered(interval)) => {}
            () = backend.check_wanted() => sleep_until(started + SHORTEST).await,
        }
    }
}

fn cause(failure: &Failure) -> Cause {
    match failure {
        Failure::Refused | Failure::NoSocket => Cause::Refused,
        _ => Cause::Failed,
    }
}

fn jittered(interval: Duration) -> Duration {
    interval.saturating_mul(fastrand::u32(100 - JITTER as u32..=100 + JITTER as u32)) / 100
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use super::*;

    fn backend() -> Arc<Backend<()>> {
        Arc::new(Backend::new("site".into(), "127.0.0.1:1".parse().unwrap()))
    }

    /// Runs against these outcomes, the last of which repeats, and gives the reports with the time of each.
    async fn reports(
        backend: &Arc<Backend<()>>,
        outcomes: &[fn() -> Result<(), Failure>],
        count: usize,
    ) -> Vec<(Condition, Duration)> {
        let start = Instant::now();
        let outcomes = RefCell::new(VecDeque::from(outcomes.to_vec()));
        let check = || async {
            let mut outcomes = outcomes.borrow_mut();
            if outcomes.len() > 1 { outcomes.pop_front().unwrap()() } else { outcomes[0]() }
        };
        let (sender, mut receiver) = mpsc::channel(1);
        let mut seen = Vec::new();
        tokio::select! {
            () = run(Arc::clone(backend), Schedule::from(&HealthCheck::default()), check, sender) => {}
            () = async {
                while seen.len() < count {
                    seen.push((receiver.recv().await.unwrap().condition, start.elapsed()));
                }
            } => {}
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn three_failures_in_a_row_take_fifteen_seconds() {
        let seen = reports(&backend(), &[|| Ok(()), || Err(Failure::Refused)], 2).await;
        assert_eq!(seen[0], (Condition::Up, Duration::ZERO));
        assert_eq!(seen[1].0, Condition::Down(Cause::Refused));
        assert!((13..=17).contains(&seen[1].1.as_secs()), "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_refuses_is_back_soon_after_it_listens_again() {
        let refused: fn() -> Result<(), Failure> = || Err(Failure::Refused);
        let seen = reports(&backend(), &[refused, refused, refused, || Ok(())], 2).await;
        assert_eq!(seen[0], (Condition::Down(Cause::Refused), Duration::ZERO));
        assert_eq!(seen[1].0, Condition::Up);
        assert!(seen[1].1 <= REFUSED * 3 * 11 / 10, "{seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_suspicion_is_checked_at_once() {
        let backend = backend();
        let suspect = async {
            sleep_until(Instant::now() + Duration::from_secs(1)).await;
            backend.suspect();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            seen = reports(&backend, &[|| Ok(()), || Err(Failure::Refused)], 2) => {
                assert_eq!(seen[1].0, Condition::Down(Cause::Refused));
                assert!(seen[1].1 < Duration::from_millis(1_100), "{seen:?}");
            }
            () = suspect => {}
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_doubt_is_checked_at_once_and_condemns_nobody() {
        let backend = backend();
        backend.doubt();
        let seen = reports(&backend, &[|| Ok(()), || Err(Failure::Refused)], 2).await;
        assert!((8..=12).contains(&seen[1].1.as_secs()), "the second of three failures came early: {seen:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_good_check_clears_a_suspicion() {
        let backend = backend();
        backend.suspect();
        reports(&backend, &[|| Ok(())], 1).await;
        assert!(!backend.is_suspect());
    }
}
