//! The checks of one backend, one after another: when, with what outcome, and what that makes of its health.

use std::{future::Future, sync::Arc, time::Duration};

use crds::config::{HealthCheck, HttpCheck, ServerCheck};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Backend, Condition,
    health::{Cause, Health, Thresholds},
};
use crate::probe::{Failure, Get, Probe};

/// Shortest time between two checks, however often the data path asks.
const SHORTEST: Duration = Duration::from_millis(100);

/// Longest time between two checks of a backend that refuses: it may be back at any moment, and a refusal costs little.
const REFUSED: Duration = Duration::from_millis(500);

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
    /// Instead of the backend's own.
    pub(super) port: Option<u16>,
    interval: Duration,
    /// How far an interval may be longer or shorter, in hundredths, so that checks of many sidecars spread.
    jitter: u32,
    pub(super) timeout: Duration,
    thresholds: Thresholds,
    /// Whether a backend that is up is checked only when requests cast doubt on it.
    optimistic: bool,
}

impl From<&ServerCheck> for Schedule {
    fn from(check: &ServerCheck) -> Self {
        let get = |http: &HttpCheck| Get {
            path: http.path.clone(),
            host: http.host.clone(),
            expected: http.expected_statuses.clone(),
        };
        Self {
            probe: check.http.as_ref().map_or(Probe::Tcp, |http| Probe::Http(get(http))),
            port: check.port,
            interval: check.interval.as_std().max(SHORTEST),
            jitter: check.jitter_percent.min(100),
            timeout: check.timeout.as_std().max(Duration::from_millis(1)),
            thresholds: Thresholds {
                healthy: check.healthy_threshold.max(1),
                unhealthy: check.unhealthy_threshold.max(1),
            },
            optimistic: false,
        }
    }
}

impl Schedule {
    pub(super) fn new(check: &HealthCheck, last_site: bool) -> Self {
        let path = check.last_site_path.as_ref().filter(|_| last_site).or(check.path.as_ref());
        let get = |path: &String| Get {
            path: path.clone(),
            host: check.host.clone(),
            expected: check.expected_statuses.clone(),
        };
        Self {
            probe: path.map_or(Probe::Tcp, |path| Probe::Http(get(path))),
            port: check.port,
            interval: check.interval.as_std().max(SHORTEST),
            jitter: check.jitter_percent.min(100),
            timeout: check.timeout.as_std().max(Duration::from_millis(1)),
            thresholds: Thresholds {
                healthy: check.healthy_threshold.max(1),
                unhealthy: check.unhealthy_threshold.max(1),
            },
            optimistic: check.optimistic,
        }
    }

    /// Time from the start of one check to the next, or none if it takes a doubt to have one.
    fn next(&self, health: &Health) -> Option<Duration> {
        if self.optimistic && health.is_surely_up() {
            return None;
        }
        let interval = match health.condition() {
            Condition::Down(Cause::Refused) => self.interval.min(REFUSED),
            _ => self.interval,
        };
        let percent = fastrand::u32(100 - self.jitter..=100 + self.jitter);
        Some((interval.saturating_mul(percent) / 100).max(SHORTEST))
    }
}

/// Checks until it is dropped, or nobody reads the reports. `health` comes from earlier checks of the same backend.
pub(super) async fn run<D, C: Future<Output = Result<(), Failure>>>(
    backend: Arc<Backend<D>>,
    schedule: Arc<Schedule>,
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
        let next = schedule.next(&health).map(|interval| started + interval);
        tokio::select! {
            () = sleep_until(next.unwrap_or(started)), if next.is_some() => {}
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

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use super::*;
    use crate::balance::Outcome;

    fn backend() -> Arc<Backend<()>> {
        Arc::new(Backend::new(
            "site".into(),
            "127.0.0.1:1".parse().unwrap(),
            None,
            Arc::default(),
            Default::default(),
        ))
    }

    fn schedule(change: impl FnOnce(&mut HealthCheck)) -> Arc<Schedule> {
        let mut check = HealthCheck::default();
        change(&mut check);
        Arc::new(Schedule::new(&check, false))
    }

    /// Runs against these outcomes, the last of which repeats, and gives the reports with the time of each.
    async fn reports(
        backend: &Arc<Backend<()>>,
        outcomes: &[fn() -> Result<(), Failure>],
        count: usize,
    ) -> Vec<(Condition, Duration)> {
        reports_by(&schedule(|_| {}), backend, outcomes, count).await
    }

    async fn reports_by(
        schedule: &Arc<Schedule>,
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
            () = run(Arc::clone(backend), Arc::clone(schedule), check, sender) => {}
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
            backend.observe(Outcome::ConnectFailed, Duration::ZERO);
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
        backend.observe(Outcome::ConnectFailed, Duration::ZERO);
        reports(&backend, &[|| Ok(())], 1).await;
        assert!(!backend.is_suspect());
    }

    #[tokio::test(start_paused = true)]
    async fn an_optimistic_check_waits_for_a_doubt_and_then_goes_on_until_it_is_sure() {
        let optimistic = schedule(|check| check.optimistic = true);
        let backend = backend();
        let doubt = async {
            sleep_until(Instant::now() + Duration::from_secs(600)).await;
            backend.observe(Outcome::Broken, Duration::ZERO);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            seen = reports_by(&optimistic, &backend, &[|| Ok(()), || Err(Failure::Refused)], 2) => {
                assert_eq!(seen[1].0, Condition::Down(Cause::Refused));
                assert!((608..=612).contains(&seen[1].1.as_secs()), "{seen:?}");
            }
            () = doubt => {}
        }
    }

    #[test]
    fn an_interval_is_jittered_as_far_as_was_asked_for() {
        let up = Health::resumed(Condition::Up);
        for (jitter, least, most) in [(0, 5_000, 5_000), (10, 4_500, 5_500), (100, 100, 10_000)] {
            let schedule = schedule(|check| check.jitter_percent = jitter);
            for _ in 0..200 {
                let next = schedule.next(&up).unwrap().as_millis();
                assert!((least..=most).contains(&next), "{jitter} %: {next} ms");
            }
        }
    }

    #[test]
    fn the_last_site_has_a_path_of_its_own() {
        let check = HealthCheck {
            path: Some("/write".into()),
            last_site_path: Some("/read".into()),
            ..HealthCheck::default()
        };
        for (last, expected) in [(false, "/write"), (true, "/read")] {
            let Probe::Http(get) = Schedule::new(&check, last).probe else { panic!("not http") };
            assert_eq!(get.path, expected);
        }
    }
}
