//! What the writer of a route keeps of one backend for as long as site and address stay in the sets: its check, what that has
//! said, whether it is ejected, and since when it ramps up.

use std::sync::Arc;

use crds::{config::Protocol, units::Address};
use tokio::time::{Duration, Instant};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Backend, Condition, Endpoint,
    check::{self, Report, Schedule},
    ejection::{Ejection, Record},
    follow::SiteInput,
    outcome::Latency,
    route::Member,
    shared::Shared,
    watcher::{Audience, Checked},
};
use crate::{
    net::{
        Target,
        tls::{Client, Peer},
    },
    probe::Probe,
};

/// Steps of a slow start, and the least weight in it, in hundredths.
const STEP: u32 = 5;
const LEAST: u32 = 10;

/// What makes a backend the same: another name, other settings of TLS or another protocol, and nothing of it can be kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) site: Arc<str>,
    address: Address,
    others: Option<Arc<[Address]>>,
    host: Option<Arc<str>>,
    tls: Option<Arc<Client>>,
    protocol: Option<Protocol>,
}

impl Key {
    /// `schedule` is that of its checks.
    pub(super) fn new(
        site: &Arc<str>,
        endpoint: &Endpoint,
        input: &SiteInput,
        schedule: Option<&Arc<Schedule>>,
    ) -> Self {
        // A name makes no difference to those who do not ask for it.
        let asked = input.tls.is_some() || schedule.is_some_and(|schedule| schedule.tls.is_some());
        let host = endpoint.host.clone().filter(|_| asked);
        Self {
            site: Arc::clone(site),
            address: endpoint.address.clone(),
            others: endpoint.others.clone(),
            host,
            tls: input.tls.clone(),
            protocol: input.protocol,
        }
    }
}

/// What a new backend starts with.
pub(super) struct Start<'a> {
    /// What it is until its first check.
    pub(super) condition: Condition,
    /// None where nothing is checked.
    pub(super) schedule: Option<&'a Arc<Schedule>>,
    pub(super) shared: &'a Arc<Shared>,
    pub(super) audience: &'a Audience,
    /// When its slow start begins; none for one that was there from the start.
    pub(super) since: Option<Instant>,
    /// Microseconds that are assumed until it has answered; 0 for none.
    pub(super) latency: u64,
}

pub(super) struct Entry<D> {
    pub(super) backend: Arc<Backend<D>>,
    condition: Condition,
    failure: Option<String>,
    ejected: Record,
    /// When it came into traffic, until it has ramped up.
    since: Option<Instant>,
    /// Hundredths of its weight that it had in the last route.
    percent: u32,
    /// The configured weight.
    weight: u32,
    terminating: bool,
    schedule: Option<Arc<Schedule>>,
    check: Option<AbortOnDropHandle<()>>,
}

impl<D: Default + Send + Sync + 'static> Entry<D> {
    /// Starts to check a backend.
    pub(super) fn start(key: &Key, endpoint: &Endpoint, start: &Start<'_>) -> Self {
        let peer = |client| Peer::new(Arc::clone(client), &endpoint.address, endpoint.host.as_deref());
        let backend = Backend::new(
            Arc::clone(&key.site),
            key.address.clone(),
            key.tls.as_ref().map(peer),
            Arc::clone(start.shared),
            Latency::assumed(start.latency),
        );
        let backend = backend.named(endpoint.host.clone()).also_at(key.others.clone());
        let backend = Arc::new(backend.speaking(key.protocol).being(start.condition));
        let check = start.schedule.map(|schedule| start_check(&backend, schedule, start.audience));
        Self {
            backend,
            condition: start.condition,
            failure: None,
            ejected: Record::default(),
            since: start.since,
            percent: 100,
            weight: 1,
            terminating: false,
            schedule: start.schedule.cloned(),
            check,
        }
    }

    /// Takes over what discovery and configuration say now.
    pub(super) fn adopt(
        &mut self,
        endpoint: &Endpoint,
        schedule: Option<&Arc<Schedule>>,
        audience: &Audience,
    ) {
        (self.weight, self.terminating) = (endpoint.weight, endpoint.terminating);
        self.backend.set_weight(endpoint.weight);
        if self.schedule.as_ref() != schedule {
            match schedule {
                None => {
                    self.forget(Condition::Unknown);
                    self.backend.trust();
                }
                // What is well may be in the other role.
                Some(new) if new.asks_anew_for_role(self.schedule.as_deref()) => {
                    self.forget(Condition::Awaited);
                }
                Some(_) => {}
            }
            // It goes on from the condition.
            self.check = schedule.map(|schedule| start_check(&self.backend, schedule, audience));
            self.schedule = schedule.cloned();
        }
    }

    /// What a check has said last holds no longer.
    fn forget(&mut self, now: Condition) {
        self.condition = now;
        self.failure = None;
        self.backend.set_condition(now);
    }
}

impl<D> Entry<D> {
    pub(super) fn take_in(&mut self, report: Report, listener: &str) {
        // One of an earlier schedule may have waited.
        if !self.schedule.as_ref().is_some_and(|schedule| Arc::ptr_eq(schedule, &report.schedule)) {
            return;
        }
        let (site, backend) = (&self.backend.site, &self.backend.address);
        let failure = report.failure.as_deref().unwrap_or("none");
        let (before, now) = (self.condition, report.condition);
        let is_back = before.is_down() && now.is_usable();
        match (before.is_down(), now.is_down()) {
            (false, true) => tracing::warn!(listener, %site, %backend, failure, "backend is down"),
            (true, false) => tracing::info!(listener, %site, %backend, "backend is up again"),
            _ => tracing::debug!(listener, %site, %backend, failure, "backend was checked"),
        }
        self.backend.set_condition(report.condition);
        self.condition = report.condition;
        self.failure = report.failure;
        if is_back {
            // What failed before it was down says nothing about what came back.
            self.readmit(Instant::now(), true);
        } else if before == Condition::Awaited {
            // Its slow start begins with its traffic.
            self.since = self.since.map(|_| Instant::now());
        }
    }

    pub(super) fn is_ejected(&self) -> bool {
        self.ejected.is_out()
    }

    /// Could take traffic, were it not for ejection.
    pub(super) fn is_usable(&self) -> bool {
        self.condition.is_usable() && self.weight > 0 && !self.terminating
    }

    pub(super) fn eject(&mut self, rules: &Ejection, now: Instant, listener: &str) {
        let failures = self.backend.streak.failures();
        let seconds = self.ejected.eject(rules, now).as_secs();
        self.backend.eject();
        let (site, backend) = (&self.backend.site, &self.backend.address);
        tracing::warn!(listener, %site, %backend, failures, seconds, "backend is ejected: requests fail in a row");
    }

    /// Forgets failures. `slowly`: the backend was not in traffic, and ramps up.
    pub(super) fn readmit(&mut self, now: Instant, slowly: bool) {
        let was_out = self.ejected.clear();
        self.backend.readmit();
        if slowly || was_out {
            self.since = Some(now);
        }
    }

    /// When time alone changes something next. `window` is that of the slow start.
    pub(super) fn wake(&self, window: Duration) -> Option<Instant> {
        let step = self.since.map(|since| since + window * (self.percent / STEP + 1) * STEP / 100);
        [self.ejected.until(), step].into_iter().flatten().min()
    }

    /// Does what is due now. True if it changes the route.
    pub(super) fn pass_time(&mut self, now: Instant, window: Duration, listener: &str) -> bool {
        if self.ejected.return_at(now) {
            self.backend.readmit();
            self.since = Some(now);
            let (site, backend) = (&self.backend.site, &self.backend.address);
            tracing::info!(listener, %site, %backend, "backend is in traffic again after an ejection");
            return true;
        }
        ramp(self.since, window, now) != self.percent
    }

    /// The backend for a route.
    pub(super) fn member(&mut self, window: Duration, now: Instant) -> Member<D> {
        self.percent = ramp(self.since, window, now);
        if self.percent == 100 && self.condition != Condition::Awaited {
            self.since = None;
        }
        Member {
            backend: Arc::clone(&self.backend),
            condition: self.condition,
            failure: self.failure.clone(),
            ejected: self.is_ejected(),
            weight: self.weight * self.percent,
        }
    }
}

/// The part of its weight that a backend has, in hundredths: it grows in steps from a tenth to all of it.
fn ramp(since: Option<Instant>, window: Duration, now: Instant) -> u32 {
    let Some(since) = since.filter(|_| !window.is_zero()) else { return 100 };
    let elapsed = now.saturating_duration_since(since);
    let percent = elapsed.as_millis() * 100 / window.as_millis().max(1);
    (u32::try_from(percent).unwrap_or(100) / STEP * STEP).clamp(LEAST, 100)
}

fn start_check<D: Send + Sync + 'static>(
    backend: &Arc<Backend<D>>,
    schedule: &Arc<Schedule>,
    audience: &Audience,
) -> AbortOnDropHandle<()> {
    let (backend, schedule) = (Arc::clone(backend), Arc::clone(schedule));
    let Audience { reports, watcher } = audience.clone();
    AbortOnDropHandle::new(tokio::spawn(async move {
        let (probe, timeout) = (schedule.probe.clone(), schedule.timeout);
        let at_port = |address: &Address| match (address, schedule.port) {
            (Address::Ip(address), Some(port)) => Address::from((address.ip(), port)),
            (address, _) => address.clone(),
        };
        let address = at_port(&backend.address);
        let others: Vec<Address> =
            backend.others.iter().flat_map(|others| others.iter()).map(at_port).collect();
        let checked = Arc::clone(&backend);
        let peer = |client| Peer::new(Arc::clone(client), &backend.address, backend.host.as_deref());
        let own = schedule.tls.as_ref().map(peer);
        let (own, preface) = (&own, schedule.preface.clone());
        let check = || async {
            let started = Instant::now();
            let foreign = matches!(probe, Probe::Http(_));
            let tls = own.as_ref().or(checked.tls.as_ref());
            let target = Target { others: &others, foreign, ..Target::new(&address, tls) };
            let outcome = probe.check(target, checked.protocol, &preface, timeout).await;
            if let Some(watcher) = &watcher {
                watcher(&Checked {
                    site: &checked.site,
                    backend: &checked.address,
                    get: match &probe {
                        Probe::Http(get) => Some(get),
                        _ => None,
                    },
                    took: started.elapsed(),
                    outcome: outcome.as_ref().copied(),
                });
            }
            outcome.map(drop)
        };
        check::run(backend, schedule, check, reports).await;
    }))
}

#[cfg(test)]
mod tests {
    use crds::config::HealthCheck;

    use super::*;
    use crate::balance::health::Cause;

    #[test]
    fn a_weight_ramps_up_from_a_tenth_to_all_of_it() {
        let (window, since) = (Duration::from_secs(30), Instant::now());
        for (seconds, percent) in [(0, 10), (3, 10), (6, 20), (17, 55), (29, 95), (30, 100), (90, 100)] {
            assert_eq!(ramp(Some(since), window, since + Duration::from_secs(seconds)), percent);
        }
        assert_eq!(ramp(None, window, since), 100);
        assert_eq!(ramp(Some(since), Duration::ZERO, since), 100);
    }

    fn endpoint(host: Option<&str>) -> Endpoint {
        Endpoint { host: host.map(Into::into), ..Endpoint::at("127.0.0.1:1".parse::<Address>().unwrap()) }
    }

    fn input() -> SiteInput {
        let (_, backends) = tokio::sync::watch::channel(Arc::default());
        SiteInput { name: "s".into(), backends, tls: None, protocol: None }
    }

    fn start(schedule: &Arc<Schedule>, condition: Condition, audience: &Audience) -> Entry<()> {
        let start = Start {
            condition,
            schedule: Some(schedule),
            shared: &Arc::default(),
            audience,
            since: Some(Instant::now()),
            latency: 0,
        };
        let endpoint = endpoint(None);
        Entry::start(&Key::new(&"s".into(), &endpoint, &input(), Some(schedule)), &endpoint, &start)
    }

    fn server_check(check: &str, tls: Option<Arc<Client>>) -> Arc<Schedule> {
        let means = check::Means { tls, ..check::Means::default() };
        Arc::new(Schedule::of_server(&serde_yaml::from_str(check).unwrap(), means))
    }

    fn audience() -> Audience {
        Audience { reports: tokio::sync::mpsc::channel(1).0, watcher: None }
    }

    fn report(entry: &Entry<()>, schedule: &Arc<Schedule>, condition: Condition) -> Report {
        Report { id: entry.backend.id, schedule: Arc::clone(schedule), condition, failure: None }
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_begins_with_the_first_good_check_where_that_was_awaited() {
        let schedule = Arc::new(Schedule::new(&HealthCheck::default(), false));
        let mut entry = start(&schedule, Condition::Awaited, &audience());
        let window = Duration::from_secs(30);
        let later = Instant::now() + 2 * window;
        assert!(!entry.member(window, later).condition.is_usable());
        entry.take_in(report(&entry, &schedule, Condition::Up), "test");
        assert_eq!(entry.member(window, Instant::now()).weight, LEAST);
        assert_eq!(entry.backend.last_downtime(), None, "it was not down");
    }

    #[tokio::test(start_paused = true)]
    async fn a_role_that_is_asked_for_anew_is_awaited_and_other_edits_change_nothing() {
        let role = Condition::Awaited;
        for (before, after, expected) in [
            ("{}", "{postgres: {role: Primary}}", role),
            ("{postgres: {}}", "{postgres: {role: Primary}}", role),
            ("{postgres: {role: Replica}}", "{postgres: {role: Primary}}", role),
            ("{postgres: {role: Replica}}", "{redis: {role: Replica}}", role),
            ("{postgres: {role: Primary}}", "{interval: 9s, postgres: {role: Primary}}", Condition::Up),
            ("{redis: {role: Master}}", "{redis: {role: Master, passwordFile: /p}}", Condition::Up),
            ("{redis: {role: Master}}", "{redis: {}}", Condition::Up),
        ] {
            let (old, new) = (server_check(before, None), server_check(after, None));
            let mut entry = start(&old, Condition::Awaited, &audience());
            entry.take_in(report(&entry, &old, Condition::Up), "test");
            entry.adopt(&endpoint(None), Some(&new), &audience());
            assert_eq!(
                (entry.condition, entry.backend.condition()),
                (expected, expected),
                "{before} {after}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_schedule_has_said_does_not_count() {
        let (old, new) = (server_check("{}", None), server_check("{redis: {role: Master}}", None));
        let mut entry = start(&old, Condition::Unknown, &audience());
        entry.adopt(&endpoint(None), Some(&new), &audience());
        entry.take_in(report(&entry, &old, Condition::Up), "test");
        assert_eq!(entry.condition, Condition::Awaited);
        entry.take_in(report(&entry, &new, Condition::Up), "test");
        assert_eq!(entry.condition, Condition::Up);
        entry.adopt(&endpoint(None), None, &audience());
        entry.take_in(report(&entry, &new, Condition::Down(Cause::Failed)), "test");
        assert_eq!(entry.condition, Condition::Unknown);
    }

    #[test]
    fn another_name_is_another_backend_to_those_who_verify_it() {
        let key = |host, input: &SiteInput, schedule: &Arc<Schedule>| {
            Key::new(&"s".into(), &endpoint(Some(host)), input, Some(schedule))
        };
        let client = || Some(Arc::new(Client::load(&serde_yaml::from_str("{}").unwrap()).unwrap()));
        let (plain, within) = (server_check("{}", None), server_check("{}", client()));
        let met_within = SiteInput { tls: client(), ..input() };
        assert!(key("a", &input(), &plain) == key("b", &input(), &plain));
        assert!(key("a", &input(), &within) != key("b", &input(), &within));
        assert!(key("a", &met_within, &plain) != key("b", &met_within, &plain));
        assert!(key("a", &input(), &within) == key("a", &input(), &within));
    }
}
