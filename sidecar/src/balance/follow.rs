//! The one writer of a listener's route: sets, reports of checks, rows of failures and the time -> plan -> snapshot. New sites
//! take over once their sets have answered, so that no request of a running listener finds a set that nobody has looked up
//! yet.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crds::config::Protocol;
use futures::future::{pending, select_all};
use tokio::{
    sync::{mpsc, watch},
    time::{Duration, Instant, sleep_until, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    BackendSet, Condition, Endpoint, Route, Rules,
    check::Report,
    ejection::Case,
    entry::{Entry, Key, Start},
    route::{Member, SiteState},
    shared::Shared,
    watcher::{Audience, Watcher},
};
use crate::net::tls::Client;

/// Reports of checks that wait to be read; beyond it checks wait.
const REPORTS: usize = 64;
/// New sites take over after this time whether or not their sets have answered: a source may stay silent for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often estimates of latency fall, where requests go by them.
const DECAY: Duration = Duration::from_millis(100);
/// Time in which an estimate of latency falls to about a third, as linkerd has it.
const MEMORY: Duration = Duration::from_secs(10);

/// A site and where its backend sets come from, in failover order.
#[derive(Debug, Clone)]
pub struct SiteInput {
    pub name: String,
    pub backends: watch::Receiver<Arc<BackendSet>>,
    /// Requests and checks go within TLS; `None` in plain text.
    pub tls: Option<Arc<Client>>,
    /// None where it is not HTTP that goes there.
    pub protocol: Option<Protocol>,
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
    rules: Rules,
    sites: Vec<SiteInput>,
    /// When it takes over at the latest.
    by: Instant,
}

impl SiteInput {
    /// Until when sets that are asked for now are waited for.
    pub fn latest_answer() -> Instant {
        Instant::now() + ANSWER_TIMEOUT
    }

    /// Waits until the sets of all sites have answered, and no longer than until then.
    pub async fn all_known<'a>(sites: impl Iterator<Item = &'a Self>, by: Instant) {
        let _ = timeout_at(by, Self::all_answer(sites)).await;
    }

    async fn all_answer<'a>(sites: impl Iterator<Item = &'a Self>) {
        for site in sites {
            if site.backends.clone().wait_for(|set| set.answered).await.is_err() {
                pending::<()>().await;
            }
        }
    }
}

impl<D: Default + Send + Sync + 'static> Balancer<D> {
    /// Starts on the current runtime. `listener` names it in logs.
    pub fn start(listener: &str, rules: Rules, sites: Vec<SiteInput>) -> Self {
        Self::launch(listener, rules, sites, None)
    }

    /// The same, with one who is told of each check.
    pub fn watched(listener: &str, rules: Rules, sites: Vec<SiteInput>, watcher: Watcher) -> Self {
        Self::launch(listener, rules, sites, Some(watcher))
    }

    fn launch(listener: &str, rules: Rules, sites: Vec<SiteInput>, watcher: Option<Watcher>) -> Self {
        let (plan, plans) = watch::channel(Plan { rules, sites, by: Instant::now() });
        let (reports, queue) = mpsc::channel(REPORTS);
        let mut follower = Follower {
            listener: listener.to_owned(),
            plan: plan.borrow().clone(),
            shared: Arc::default(),
            entries: HashMap::new(),
            audience: Audience { reports, watcher },
            decay_at: Instant::now(),
            live: None,
            route: watch::Sender::new(Arc::new(Route::empty())),
            answered: watch::Sender::new(false),
        };
        follower.shared.adopt(&follower.plan.rules);
        follower.publish();
        let (route, answered) = (follower.route.subscribe(), follower.answered.subscribe());
        let task = AbortOnDropHandle::new(tokio::spawn(follower.run(plans, queue)));
        Self { plan, route, answered, _task: task }
    }

    /// Other sites or rules, as soon as the sets of the sites have answered. Sites are the same by name.
    pub fn update(&self, rules: Rules, sites: Vec<SiteInput>) {
        self.update_by(rules, sites, SiteInput::latest_answer());
    }

    /// The same, at the latest then.
    pub fn update_by(&self, rules: Rules, sites: Vec<SiteInput>, by: Instant) {
        self.plan.send_replace(Plan { rules, sites, by });
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
    shared: Arc<Shared>,
    entries: HashMap<Key, Entry<D>>,
    audience: Audience,
    /// When estimates of latency fall next.
    decay_at: Instant,
    /// Whether the last route had a live backend; none before the first that could.
    live: Option<bool>,
    route: watch::Sender<Arc<Route<D>>>,
    answered: watch::Sender<bool>,
}

impl<D: Default + Send + Sync + 'static> Follower<D> {
    async fn run(mut self, mut plans: watch::Receiver<Plan>, mut queue: mpsc::Receiver<Report>) {
        let mut next: Option<Plan> = None;
        let shared = Arc::clone(&self.shared);
        loop {
            let wake = self.wake();
            let changed = tokio::select! {
                changed = plans.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let plan = plans.borrow_and_update().clone();
                    // Changes in a row take over as soon as the first of them would have.
                    let by = next.map_or(plan.by, |waiting| waiting.by.min(plan.by));
                    next = Some(Plan { by, ..plan });
                    false
                }
                () = is_due(next.as_ref()) => next.take().map(|plan| self.replan(plan)).is_some(),
                () = a_set_changed(&mut self.plan.sites) => true,
                Some(report) = queue.recv() => {
                    self.take_in(report);
                    while let Ok(report) = queue.try_recv() {
                        self.take_in(report);
                    }
                    true
                }
                () = shared.outlier.notified() => self.eject_outliers(),
                () = sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => self.pass_time(),
            };
            if changed {
                self.publish();
            }
        }
    }

    fn replan(&mut self, plan: Plan) {
        self.shared.adopt(&plan.rules);
        if plan.rules.ejection.errors == 0 {
            for entry in self.entries.values_mut() {
                entry.readmit(Instant::now(), false);
            }
        }
        self.plan = plan;
    }

    fn take_in(&mut self, report: Report) {
        // A backend that has just gone may have one report left.
        if let Some(entry) = self.entries.values_mut().find(|entry| entry.backend.id == report.id) {
            entry.take_in(report, &self.listener);
        }
    }

    /// When time alone changes something next.
    fn wake(&self) -> Option<Instant> {
        let rules = &self.plan.rules;
        let entries = self.entries.values().filter_map(|entry| entry.wake(rules.slow_start));
        entries.chain(rules.measures().then_some(self.decay_at)).min()
    }

    /// Does what is due now. True if it changes the route.
    fn pass_time(&mut self) -> bool {
        let now = Instant::now();
        if self.plan.rules.measures() && now >= self.decay_at {
            let elapsed = DECAY + (now - self.decay_at);
            let kept = (-elapsed.as_secs_f64() / MEMORY.as_secs_f64()).exp();
            self.entries.values().for_each(|entry| entry.backend.latency.decay(kept));
            self.decay_at = now + DECAY;
        }
        let (listener, window) = (&self.listener, self.plan.rules.slow_start);
        let mut due = false;
        for entry in self.entries.values_mut() {
            due |= entry.pass_time(now, window, listener);
        }
        due
    }

    /// Takes those out that fail while others do well. True if there are any.
    fn eject_outliers(&mut self) -> bool {
        let (rules, now) = (self.plan.rules.ejection, Instant::now());
        if rules.errors == 0 {
            return false;
        }
        let mut any = false;
        let failing: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.backend.streak.failures() >= rules.errors && !entry.is_ejected())
            .map(|(key, _)| key.clone())
            .collect();
        for key in failing {
            let applies = self.case(&key).is_some_and(|case| rules.applies(case));
            if let Some(entry) = self.entries.get_mut(&key).filter(|_| applies) {
                entry.eject(&rules, now, &self.listener);
                any = true;
            }
        }
        any
    }

    /// What speaks for and against ejecting a backend.
    fn case(&self, key: &Key) -> Option<Case> {
        let streak = &self.entries.get(key)?.backend.streak;
        let place = |site: &str| self.plan.sites.iter().position(|input| input.name == site);
        let own = place(&key.site)?;
        let mut case = Case {
            failures: streak.failures(),
            usable: 0,
            ejected: 0,
            others_do_well: false,
            later_site: false,
        };
        for (other, entry) in self.entries.iter().filter(|(_, entry)| entry.is_usable()) {
            if other.site != key.site {
                case.later_site |= !entry.is_ejected() && place(&other.site) > Some(own);
                continue;
            }
            case.usable += 1;
            case.ejected += usize::from(entry.is_ejected());
            case.others_do_well |=
                other != key && !entry.is_ejected() && entry.backend.streak.was_good_during(streak);
        }
        Some(case)
    }

    fn publish(&mut self) {
        let sets: Vec<_> =
            self.plan.sites.iter_mut().map(|site| site.backends.borrow_and_update().clone()).collect();
        let sites: Vec<_> = self.plan.sites.clone();
        let now = Instant::now();
        #[expect(
            clippy::mutable_key_type,
            reason = "clients are told apart by their settings, which do not change"
        )]
        let mut wanted = HashSet::new();
        let mut states = Vec::with_capacity(sites.len());
        for (index, (site, set)) in sites.iter().zip(sets).enumerate() {
            let name: Arc<str> = site.name.as_str().into();
            let last = index + 1 == sites.len();
            let running = self.entries.keys().any(|key| key.site == name);
            let members = set.endpoints.iter().map(|endpoint| {
                let key = Key::new(&name, endpoint, site, self.plan.rules.schedule(last));
                wanted.insert(key.clone());
                self.member(key, endpoint, last, running, now)
            });
            let members = members.collect();
            states.push(SiteState { name, set, members });
        }
        self.entries.retain(|key, _| wanted.contains(key));
        let answered = states.iter().all(|state| state.set.answered);
        let mut members = states.iter().flat_map(|state| &state.members);
        let known = answered && !members.any(|member| member.condition == Condition::Awaited);
        let route = Arc::new(Route::plan(&states, &self.plan.rules, &self.shared));
        self.log(&route, known);
        self.route.send_replace(route);
        self.answered.send_if_modified(|before| !std::mem::replace(before, *before || answered) && answered);
    }

    /// `running`: the site has served before, so that a new backend of it starts slowly.
    fn member(
        &mut self,
        key: Key,
        endpoint: &Endpoint,
        last_site: bool,
        running: bool,
        now: Instant,
    ) -> Member<D> {
        let rules = &self.plan.rules;
        let schedule = rules.schedule(last_site);
        let start = Start {
            condition: rules.initial,
            schedule,
            shared: &self.shared,
            audience: &self.audience,
            since: running.then_some(now),
            latency: if running && rules.measures() { self.slowest(&key) } else { 0 },
        };
        let entry = self.entries.entry(key).or_insert_with_key(|key| Entry::start(key, endpoint, &start));
        entry.adopt(endpoint, schedule, &self.audience);
        entry.member(rules.slow_start, now)
    }

    /// The longest latency of the site that a new backend comes to, in microseconds: it gets less than its share until it has
    /// answered, and not all of the traffic.
    fn slowest(&self, new: &Key) -> u64 {
        if self.entries.contains_key(new) {
            return 0;
        }
        let others = self.entries.iter().filter(|(key, _)| key.site == new.site);
        others.map(|(_, entry)| entry.backend.latency.micros()).max().unwrap_or(0)
    }

    /// Says once when the last live backend has gone, and when one is back. `known`: there is none that may still turn out to be
    /// live.
    fn log(&mut self, route: &Route<D>, known: bool) {
        let live = route.is_live();
        if self.live == Some(live) || !(live || known) {
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

/// Waits until it is the plan's turn: the set of each site has answered, or has had its time.
async fn is_due(next: Option<&Plan>) {
    let Some(plan) = next else { return pending().await };
    SiteInput::all_known(plan.sites.iter(), plan.by).await;
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
#[path = "follow_tests.rs"]
mod tests;
