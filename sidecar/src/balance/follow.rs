//! The one writer of a listener's route: sets and reports of checks -> plan -> snapshot. A backend keeps its counters and
//! its health for as long as site and address stay in the sets. New sites take over once their sets have answered, so that
//! no request of a running listener finds a set that nobody has looked up yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crds::{config::HealthCheck, units::Address};
use futures::future::{pending, select_all};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Backend, BackendSet, Condition, Endpoint, Route,
    check::{self, Report, Schedule},
    route::{Member, SiteState},
};
use crate::net::tls::Client;

/// Reports of checks that wait to be read; beyond it checks wait.
const REPORTS: usize = 64;
/// New sites take over after this time whether or not their sets have answered: a source may stay silent for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// A site and where its backend sets come from, in failover order.
#[derive(Debug, Clone)]
pub struct SiteInput {
    pub name: String,
    pub backends: watch::Receiver<Arc<BackendSet>>,
    /// Requests and checks go within TLS; `None` in plain text.
    pub tls: Option<Arc<Client>>,
}

/// Follows the sets of some sites and checks their backends, until it is dropped.
pub struct Balancer<D> {
    plan: watch::Sender<Plan>,
    route: watch::Receiver<Arc<Route<D>>>,
    answered: watch::Receiver<bool>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Plan {
    schedule: Schedule,
    sites: Vec<SiteInput>,
}

impl<D: Default + Send + Sync + 'static> Balancer<D> {
    /// Starts on the current runtime. `listener` names it in logs.
    pub fn start(listener: &str, health: &HealthCheck, sites: Vec<SiteInput>) -> Self {
        let (plan, plans) = watch::channel(Plan { schedule: health.into(), sites });
        let (reports, queue) = mpsc::channel(REPORTS);
        let mut follower = Follower {
            listener: listener.to_owned(),
            plan: plan.borrow().clone(),
            entries: HashMap::new(),
            reports,
            live: None,
            route: watch::Sender::new(Arc::new(Route::empty())),
            answered: watch::Sender::new(false),
        };
        follower.publish();
        let (route, answered) = (follower.route.subscribe(), follower.answered.subscribe());
        let task = AbortOnDropHandle::new(tokio::spawn(follower.run(plans, queue)));
        Self { plan, route, answered, _task: task }
    }

    /// Other sites or checks, as soon as the sets of the sites have answered. Sites are the same by name.
    pub fn update(&self, health: &HealthCheck, sites: Vec<SiteInput>) {
        self.plan.send_replace(Plan { schedule: health.into(), sites });
    }
}

impl<D> Balancer<D> {
    pub fn route(&self) -> watch::Receiver<Arc<Route<D>>> {
        self.route.clone()
    }

    /// True once the sets of all sites have answered.
    pub fn answered(&self) -> watch::Receiver<bool> {
        self.answered.clone()
    }
}

struct Follower<D> {
    listener: String,
    plan: Plan,
    entries: HashMap<Key, Entry<D>>,
    reports: mpsc::Sender<Report>,
    /// Whether the last route had a live backend; none before the first that could.
    live: Option<bool>,
    route: watch::Sender<Arc<Route<D>>>,
    answered: watch::Sender<bool>,
}

/// What makes a backend the same: another name, or other settings of TLS, and nothing of it can be kept.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    site: Arc<str>,
    address: Address,
    host: Option<Arc<str>>,
    tls: Option<Arc<Client>>,
}

struct Entry<D> {
    backend: Arc<Backend<D>>,
    condition: Condition,
    failure: Option<String>,
    _check: AbortOnDropHandle<()>,
}

impl Key {
    fn new(site: &Arc<str>, endpoint: &Endpoint, tls: Option<&Arc<Client>>) -> Self {
        // A name makes no difference to those who do not ask for it.
        let host = endpoint.host.clone().filter(|_| tls.is_some());
        Self { site: Arc::clone(site), address: endpoint.address.clone(), host, tls: tls.cloned() }
    }
}

impl<D: Default + Send + Sync + 'static> Follower<D> {
    async fn run(mut self, mut plans: watch::Receiver<Plan>, mut queue: mpsc::Receiver<Report>) {
        let mut next: Option<(Plan, Instant)> = None;
        loop {
            tokio::select! {
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = plans.borrow_and_update().clone();
                    next = Some((plan, Instant::now() + ANSWER_TIMEOUT));
                }
                () = all_answered(next.as_ref()) => {
                    if let Some((plan, _)) = next.take() {
                        self.replan(plan);
                    }
                }
                () = a_set_changed(&mut self.plan.sites) => {}
                Some(report) = queue.recv() => {
                    self.take_in(report);
                    while let Ok(report) = queue.try_recv() {
                        self.take_in(report);
                    }
                }
            }
            self.publish();
        }
    }

    fn replan(&mut self, plan: Plan) {
        if plan.schedule != self.plan.schedule {
            for entry in self.entries.values_mut() {
                entry._check = start_check(&entry.backend, &plan.schedule, &self.reports);
            }
        }
        self.plan = plan;
    }

    fn take_in(&mut self, report: Report) {
        // A backend that has just gone may have one report left.
        let Some(entry) = self.entries.values_mut().find(|entry| entry.backend.id == report.id) else {
            return;
        };
        let (site, backend) = (&entry.backend.site, &entry.backend.address);
        let failure = report.failure.as_deref().unwrap_or("none");
        match (entry.condition.is_usable(), report.condition.is_usable()) {
            (true, false) => {
                tracing::warn!(listener = self.listener, %site, %backend, failure, "backend is down");
            }
            (false, true) => tracing::info!(listener = self.listener, %site, %backend, "backend is up again"),
            _ => tracing::debug!(listener = self.listener, %site, %backend, failure, "backend was checked"),
        }
        entry.backend.set_condition(report.condition);
        entry.condition = report.condition;
        entry.failure = report.failure;
    }

    fn publish(&mut self) {
        let sets: Vec<_> =
            self.plan.sites.iter_mut().map(|site| site.backends.borrow_and_update().clone()).collect();
        let sites: Vec<_> = self.plan.sites.clone();
        let mut wanted = HashSet::new();
        let mut states = Vec::with_capacity(sites.len());
        for (site, set) in sites.iter().zip(sets) {
            let name: Arc<str> = site.name.as_str().into();
            let members = set.endpoints.iter().map(|endpoint| {
                let key = Key::new(&name, endpoint, site.tls.as_ref());
                wanted.insert(key.clone());
                let entry = self.entry(key, endpoint);
                Member {
                    backend: Arc::clone(&entry.backend),
                    condition: entry.condition,
                    failure: entry.failure.clone(),
                    terminating: endpoint.terminating,
                }
            });
            let members = members.collect();
            states.push(SiteState { name, set, members });
        }
        self.entries.retain(|key, _| wanted.contains(key));
        let answered = states.iter().all(|state| state.set.answered);
        let route = Arc::new(Route::plan(&states));
        self.log(&route, answered);
        self.route.send_replace(route);
        self.answered.send_if_modified(|before| !std::mem::replace(before, *before || answered) && answered);
    }

    fn entry(&mut self, key: Key, endpoint: &Endpoint) -> &Entry<D> {
        let (schedule, reports) = (&self.plan.schedule, &self.reports);
        let (site, tls) = (Arc::clone(&key.site), key.tls.clone());
        self.entries.entry(key).or_insert_with(|| {
            let backend = Arc::new(Backend::within(site, endpoint, tls.as_ref()));
            let check = start_check(&backend, schedule, reports);
            Entry { backend, condition: Condition::Unknown, failure: None, _check: check }
        })
    }

    /// Says once when the last live backend has gone, and when one is back.
    fn log(&mut self, route: &Route<D>, answered: bool) {
        let live = route.is_live();
        if self.live == Some(live) || !(live || answered) {
            return;
        }
        if !live {
            let reason = route.unavailable.trim_end();
            tracing::warn!(listener = self.listener, reason, "no live backend");
        } else if self.live == Some(false) {
            tracing::info!(listener = self.listener, "there is a live backend again");
        }
        self.live = Some(live);
    }
}

fn start_check<D: Send + Sync + 'static>(
    backend: &Arc<Backend<D>>,
    schedule: &Schedule,
    reports: &mpsc::Sender<Report>,
) -> AbortOnDropHandle<()> {
    let (backend, schedule, reports) = (Arc::clone(backend), schedule.clone(), reports.clone());
    AbortOnDropHandle::new(tokio::spawn(async move {
        let (probe, checked, timeout) = (schedule.probe.clone(), backend.clone(), schedule.timeout);
        let check = || probe.check(&checked.address, checked.tls.as_ref(), timeout);
        check::run(backend, schedule, check, reports).await;
    }))
}

/// Waits until the set of each site has answered, or has had its time.
async fn all_answered(next: Option<&(Plan, Instant)>) {
    let Some((plan, deadline)) = next else { return pending().await };
    let answers = async {
        for site in &plan.sites {
            if site.backends.clone().wait_for(|set| set.answered).await.is_err() {
                pending::<()>().await;
            }
        }
    };
    // Either way it is this plan's turn now.
    let _ = timeout_at(*deadline, answers).await;
}

/// Waits for the next set of any site. A source that has ended keeps its last set.
async fn a_set_changed(sites: &mut [SiteInput]) {
    if sites.is_empty() {
        return pending().await;
    }
    let changes = sites.iter_mut().map(|site| {
        Box::pin(async {
            if site.backends.changed().await.is_err() {
                pending::<()>().await;
            }
        })
    });
    select_all(changes).await;
}

#[cfg(test)]
mod tests {
    use tokio::{net::TcpListener, time::timeout};

    use super::*;

    fn set(addresses: &[Address]) -> Arc<BackendSet> {
        let endpoints = addresses.iter().map(|address| Endpoint::at(address.clone())).collect();
        Arc::new(BackendSet { endpoints, unavailable: Vec::new(), answered: true })
    }

    async fn until<D>(
        route: &mut watch::Receiver<Arc<Route<D>>>,
        condition: impl Fn(&Route<D>) -> bool,
    ) -> Arc<Route<D>> {
        let found = timeout(Duration::from_secs(10), route.wait_for(|route| condition(route))).await;
        Arc::clone(&found.expect("the route changes in time").unwrap())
    }

    #[tokio::test]
    async fn a_backend_is_the_same_across_sets_and_updates() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (a, b) = (Address::from(server.local_addr().unwrap()), "127.0.0.1:1".parse().unwrap());
        let (sets, backends) = watch::channel(set(&[a.clone()]));
        let input = SiteInput { name: "one".into(), backends, tls: None };
        let balancer = Balancer::<()>::start("test", &HealthCheck::default(), vec![input.clone()]);
        let mut route = balancer.route();
        let first = until(&mut route, |route| route.backends.len() == 1).await;
        sets.send_replace(set(&[a.clone(), b]));
        let second = until(&mut route, |route| route.backends.len() == 2).await;
        let (_gone, other) = watch::channel(set(&[a]));
        balancer.update(
            &HealthCheck { path: Some("/x".into()), ..HealthCheck::default() },
            vec![SiteInput { name: "zero".into(), backends: other, tls: None }, input],
        );
        let third = until(&mut route, |route| route.backends.len() == 3).await;
        let ids = |route: &Route<()>| route.backends.iter().map(|backend| backend.id).collect::<Vec<_>>();
        assert_eq!(ids(&first), ids(&second)[..1]);
        assert_eq!(ids(&second), ids(&third)[1..]);
    }

    #[tokio::test]
    async fn new_sites_take_over_only_once_their_sets_have_answered() {
        let servers = [
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
            TcpListener::bind("127.0.0.1:0").await.unwrap(),
        ];
        let [a, b] = servers.each_ref().map(|server| Address::from(server.local_addr().unwrap()));
        let (_before, backends) = watch::channel(set(&[a.clone()]));
        let balancer = Balancer::<()>::start(
            "test",
            &HealthCheck::default(),
            vec![SiteInput { name: "one".into(), backends, tls: None }],
        );
        let mut route = balancer.route();
        until(&mut route, Route::is_live).await;
        let (after, backends) = watch::channel(Arc::new(BackendSet::default()));
        balancer.update(&HealthCheck::default(), vec![SiteInput { name: "two".into(), backends, tls: None }]);
        tokio::task::yield_now().await;
        assert_eq!(route.borrow().backends[0].address, a, "the old set serves");
        after.send_replace(set(&[b.clone()]));
        until(&mut route, |route| {
            assert!(route.is_live(), "there is a backend at every moment");
            route.backends[0].address == b
        })
        .await;
    }

    #[tokio::test(start_paused = true)]
    async fn new_sites_whose_sets_stay_silent_take_over_in_the_end() {
        let (_before, backends) = watch::channel(set(&[]));
        let balancer = Balancer::<()>::start(
            "test",
            &HealthCheck::default(),
            vec![SiteInput { name: "one".into(), backends, tls: None }],
        );
        let (_silent, backends) = watch::channel(Arc::new(BackendSet::default()));
        balancer.update(&HealthCheck::default(), vec![SiteInput { name: "two".into(), backends, tls: None }]);
        let mut route = balancer.route();
        let taken = route.wait_for(|route| route.unavailable.contains("site two"));
        tokio::time::timeout(2 * ANSWER_TIMEOUT, taken).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_refused_check_takes_a_backend_out_and_says_why() {
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
        let (_sets, backends) = watch::channel(set(&[closed]));
        let input = SiteInput { name: "one".into(), backends, tls: None };
        let balancer = Balancer::<()>::start("test", &HealthCheck::default(), vec![input]);
        let route = until(&mut balancer.route(), |route| !route.is_live()).await;
        assert_eq!(
            route.unavailable,
            "site one: the only backend failed its last check: connection refused\n"
        );
    }

    #[tokio::test]
    async fn all_sets_must_answer_once() {
        let silent = || watch::channel(Arc::new(BackendSet::default()));
        let ((first, a), (second, b)) = (silent(), silent());
        let sites = vec![
            SiteInput { name: "a".into(), backends: a, tls: None },
            SiteInput { name: "b".into(), backends: b, tls: None },
        ];
        let balancer = Balancer::<()>::start("test", &HealthCheck::default(), sites);
        let mut answered = balancer.answered();
        first.send_replace(set(&[]));
        until(&mut balancer.route(), |route| route.unavailable.contains("site a: it has no backends now"))
            .await;
        assert!(!*answered.borrow_and_update());
        second.send_replace(set(&[]));
        timeout(Duration::from_secs(10), answered.wait_for(|answered| *answered)).await.unwrap().unwrap();
    }
}
