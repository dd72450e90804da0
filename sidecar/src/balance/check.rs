//! The checks of one backend, one after another: when, with what outcome, and what that makes of its health.

use std::{future::Future, sync::Arc, time::Duration};

use crds::config::{HealthCheck, PostgresRole, RedisRole, ServerCheck};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Backend, Condition,
    health::{Cause, Health, Thresholds},
};
use crate::{
    net::tls::Client,
    probe::{Datagram, Failure, Get, Postgres, Probe, Redis},
};

/// Shortest time between two checks, however often the data path asks.
const SHORTEST: Duration = Duration::from_millis(100);

/// Longest time between two checks of a backend that refuses: it may be back at any moment, and a refusal costs little.
const REFUSED: Duration = Duration::from_millis(500);

/// A backend's condition, or the reason for it: the first that was found out, and each change after it.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) id: u64,
    /// By which it was found out: what an earlier one has said does not hold for a later one.
    pub(super) schedule: Arc<Schedule>,
    pub(super) condition: Condition,
    /// What the last check failed with.
    pub(super) failure: Option<String>,
}

/// How backends are checked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Schedule {
    pub(super) probe: Probe,
    /// Checks go within this TLS, whatever connections go in.
    pub(super) tls: Option<Arc<Client>>,
    /// Bytes in front of the connection.
    pub(super) preface: Vec<u8>,
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

/// What a server is to be among those that copy each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Postgres(PostgresRole),
    Redis(RedisRole),
}

/// What the checks of a TCP or UDP listener need beside its [`ServerCheck`].
#[derive(Debug, Clone, Default)]
pub(super) struct Means {
    /// Instead of that which the backends are met in.
    pub(super) tls: Option<Arc<Client>>,
    /// Bytes in front of each connection, at the backends' own port.
    pub(super) preface: Vec<u8>,
}

impl Schedule {
    pub(super) fn of_server(check: &ServerCheck, means: Means) -> Self {
        Self {
            probe: probe(check),
            tls: means.tls,
            // What listens at another port is not what connections go to.
            preface: if check.port.is_none() { means.preface } else { Vec::new() },
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

    pub(super) fn new(check: &HealthCheck, last_site: bool) -> Self {
        let path = check.last_site_path.as_ref().filter(|_| last_site).or(check.path.as_ref());
        let get = |path: &String| Get {
            path: path.clone(),
            host: check.host.clone(),
            expected: check.expected_statuses.clone(),
        };
        Self {
            probe: path.map_or(Probe::Tcp, |path| Probe::Http(get(path))),
            tls: None,
            preface: Vec::new(),
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

    /// Whether servers are told apart by their role.
    pub(super) fn asks_for_role(&self) -> bool {
        self.role().is_some()
    }

    /// Whether it wants another role than `before` did: what that has said tells nothing about it.
    pub(super) fn asks_anew_for_role(&self, before: Option<&Self>) -> bool {
        self.asks_for_role() && self.role() != before.and_then(Self::role)
    }

    fn role(&self) -> Option<Role> {
        match &self.probe {
            Probe::Postgres(postgres) => postgres.role.map(Role::Postgres),
            Probe::Redis(redis) => redis.role.map(Role::Redis),
            Probe::Tcp | Probe::Http(_) | Probe::Udp(_) => None,
        }
    }

    fn cause(&self, failure: &Failure, before: Condition) -> Cause {
        match failure {
            Failure::Refused | Failure::NoSocket => Cause::Refused,
            Failure::Role { .. } => Cause::OtherRole,
            // The last that was heard of its role was not that it is the right one.
            _ if self.asks_for_role()
                && !matches!(before, Condition::Up | Condition::Down(Cause::Failed)) =>
            {
                Cause::OtherRole
            }
            _ => Cause::Failed,
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

/// The one way in which a check asks; the configuration has no more than one.
fn probe(check: &ServerCheck) -> Probe {
    if let Some(http) = &check.http {
        let expected = http.expected_statuses.clone();
        return Probe::Http(Get { path: http.path.clone(), host: http.host.clone(), expected });
    }
    if let Some(postgres) = &check.postgres {
        return Probe::Postgres(Postgres {
            user: postgres.user.clone(),
            database: postgres.database.clone(),
            password_file: postgres.password_file.clone(),
            role: postgres.role,
        });
    }
    if let Some(redis) = &check.redis {
        return Probe::Redis(Redis {
            user: redis.user.clone(),
            password_file: redis.password_file.clone(),
            role: redis.role,
        });
    }
    let datagram = check
        .udp
        .as_ref()
        .and_then(|udp| Some(Datagram { question: udp.question()?.to_vec(), answer: udp.answer().to_vec() }));
    datagram.map_or(Probe::Tcp, Probe::Udp)
}

/// Checks until it is dropped, or nobody reads the reports. `health` comes from earlier checks of the same backend.
pub(super) async fn run<D, C: Future<Output = Result<(), Failure>>>(
    backend: Arc<Backend<D>>,
    schedule: Arc<Schedule>,
    check: impl Fn() -> C,
    reports: mpsc::Sender<Report>,
) {
    let mut health = Health::resumed(backend.condition());
    let mut reported = None;
    loop {
        let started = Instant::now();
        let outcome = check().await;
        let full = outcome.as_ref().is_err_and(Failure::is_full);
        let cause = match &outcome {
            // It still is what it was when it could say so.
            Err(_) if full && health.condition() == Condition::Up => Ok(()),
            outcome => {
                outcome.as_ref().copied().map_err(|failure| schedule.cause(failure, health.condition()))
            }
        };
        // Who tells that it has another role needs no confirmation.
        let sure = backend.is_suspect() || cause == Err(Cause::OtherRole);
        if !full || cause.is_ok() {
            health.checked(cause, sure, schedule.thresholds);
        }
        if cause.is_ok() {
            backend.trust();
        }
        let failure =
            outcome.err().filter(|_| !health.condition().is_usable()).map(|failure| failure.to_string());
        let now = (health.condition(), failure);
        if reported.as_ref() != Some(&now) {
            reported = Some(now.clone());
            let (condition, failure) = now;
            let report = Report { id: backend.id, schedule: Arc::clone(&schedule), condition, failure };
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

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use super::*;
    use crate::{balance::Outcome, probe::PostgresFailure};

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
    async fn a_dead_backend_is_out_after_interval_and_timeout_whatever_else_is_slow() {
        let check: ServerCheck =
            serde_yaml::from_str("{interval: 3s, timeout: 1s, jitterPercent: 0, redis: {}}").unwrap();
        let schedule = Arc::new(Schedule::of_server(&check, Means::default()));
        let bound = schedule.interval + schedule.timeout;
        // Twenty at once, each of which dies at another moment and then says nothing more.
        let deaths = (0..20u64).map(|number| Duration::from_millis(1 + 170 * number));
        let dying = deaths.map(|death| {
            let schedule = Arc::clone(&schedule);
            tokio::spawn(async move {
                let end = Instant::now() + death;
                let check = || async {
                    if Instant::now() < end {
                        return Ok(());
                    }
                    let silence = std::future::pending::<()>();
                    let answer = tokio::time::timeout(schedule.timeout, silence).await;
                    answer.map_err(|_| Failure::TimedOut(schedule.timeout))
                };
                let (sender, mut receiver) = mpsc::channel::<Report>(1);
                let down = async {
                    while receiver.recv().await.unwrap().condition != Condition::Down(Cause::Failed) {}
                    Instant::now() - end
                };
                tokio::select! {
                    () = run(backend(), Arc::clone(&schedule), check, sender) => unreachable!(),
                    after = down => after,
                }
            })
        });
        for after in futures::future::join_all(dying).await {
            assert!(after.unwrap() <= bound, "longer than {bound:?}");
        }
    }

    #[test]
    fn only_who_was_last_heard_of_in_the_right_role_may_get_traffic_while_it_fails_its_checks() {
        let schedule = |text: &str| {
            Schedule::of_server(&serde_yaml::from_str::<ServerCheck>(text).unwrap(), Means::default())
        };
        let (by_role, plain) = (schedule("{postgres: {role: Primary}}"), schedule("{postgres: {}}"));
        let role = Failure::Role { found: "a replica", wanted: "the primary" };
        let silent = Failure::TimedOut(Duration::ZERO);
        let down = Condition::Down;
        for before in [Condition::Up, down(Cause::Failed)] {
            assert_eq!(by_role.cause(&silent, before), Cause::Failed);
        }
        for before in [Condition::Awaited, Condition::Unknown, down(Cause::Refused), down(Cause::OtherRole)] {
            assert_eq!(by_role.cause(&silent, before), Cause::OtherRole);
            assert_eq!(plain.cause(&silent, before), Cause::Failed);
        }
        for before in [Condition::Up, Condition::Awaited] {
            assert_eq!(by_role.cause(&role, before), Cause::OtherRole);
            assert_eq!(by_role.cause(&Failure::Refused, before), Cause::Refused);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_role_counts_at_once_and_other_failures_after_as_many_as_are_wanted() {
        let text = "{interval: 1s, jitterPercent: 0, unhealthyThreshold: 3, redis: {role: Master}}";
        let check: ServerCheck = serde_yaml::from_str(text).unwrap();
        let schedule = Arc::new(Schedule::of_server(&check, Means::default()));
        let other = || Failure::Role { found: "a replica", wanted: "the master" };
        let script = RefCell::new(VecDeque::from([Ok(()), Err(other()), Ok(()), Err(Failure::Silent)]));
        let check = || {
            let next = script.borrow_mut().pop_front();
            async { next.unwrap_or(Err(Failure::Silent)) }
        };
        let (sender, mut receiver) = mpsc::channel::<Report>(8);
        let start = Instant::now();
        let seen = async {
            let mut seen = Vec::new();
            while seen.len() < 4 {
                let condition = receiver.recv().await.unwrap().condition;
                seen.push((condition, start.elapsed().as_secs()));
            }
            seen
        };
        let seen = tokio::select! {
            () = run(backend(), schedule, check, sender) => unreachable!(),
            seen = seen => seen,
        };
        let other = Condition::Down(Cause::OtherRole);
        let failed = Condition::Down(Cause::Failed);
        assert_eq!(seen, [(Condition::Up, 0), (other, 1), (Condition::Up, 2), (failed, 5)]);
    }

    fn full() -> Result<(), Failure> {
        Err(PostgresFailure::Full { message: "sorry, too many clients already".into() }.into())
    }

    fn for_the_primary() -> Arc<Schedule> {
        let text = "{interval: 1s, jitterPercent: 0, unhealthyThreshold: 1, postgres: {role: Primary}}";
        Arc::new(Schedule::of_server(&serde_yaml::from_str(text).unwrap(), Means::default()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_that_is_up_stays_so() {
        let backend = backend();
        let other = || Err(Failure::Role { found: "a replica", wanted: "the primary" });
        let script: [fn() -> _; 5] = [|| Ok(()), full, full, full, other];
        let seen = reports_by(&for_the_primary(), &backend, &script, 2).await;
        let seconds = |(condition, elapsed): (Condition, Duration)| (condition, elapsed.as_secs());
        let expected = [(Condition::Up, 0), (Condition::Down(Cause::OtherRole), 4)];
        assert_eq!(seen.into_iter().map(seconds).collect::<Vec<_>>(), expected);
        // Where the data path could not connect either, it is no other server.
        backend.set_condition(Condition::Up);
        backend.observe(Outcome::ConnectFailed, Duration::ZERO);
        let seen = reports_by(&for_the_primary(), &backend, &[full], 1).await;
        assert_eq!((seen[0].0, backend.is_suspect()), (Condition::Up, false));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_server_whose_role_is_not_known_stays_unknown() {
        for before in [Condition::Awaited, Condition::Down(Cause::OtherRole), Condition::Down(Cause::Failed)]
        {
            let backend = backend();
            backend.set_condition(before);
            let seen = reports_by(&for_the_primary(), &backend, &[full, full, || Ok(())], 1).await;
            assert_eq!(seen[0].0, before);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_outcome_is_reported_even_where_nothing_has_changed() {
        let backend = backend();
        backend.set_condition(Condition::Up);
        assert_eq!(reports(&backend, &[|| Ok(())], 1).await, [(Condition::Up, Duration::ZERO)]);
    }

    #[test]
    fn a_check_asks_in_the_one_way_that_is_configured() {
        let schedule = |text: &str| {
            let check: ServerCheck = serde_yaml::from_str(text).unwrap();
            Schedule::of_server(&check, Means { tls: None, preface: b"PROXY".to_vec() })
        };
        assert_eq!(schedule("{}").probe, Probe::Tcp);
        assert!(matches!(schedule("{http: {path: /}}").probe, Probe::Http(get) if get.path == "/"));
        assert!(
            matches!(schedule("{postgres: {user: a}}").probe, Probe::Postgres(asked) if asked.user == "a")
        );
        assert!(matches!(schedule("{redis: {user: a}}").probe, Probe::Redis(asked) if asked.user.is_some()));
        let datagram = Datagram { question: b"a".to_vec(), answer: vec![0] };
        assert_eq!(schedule("{udp: {send: a, expectHex: '00'}}").probe, Probe::Udp(datagram));
        assert_eq!(schedule("{}").preface, b"PROXY");
        assert_eq!(schedule("{port: 1}").preface, b"", "another port is another server");
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
