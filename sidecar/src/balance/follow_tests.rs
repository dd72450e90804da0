//! The task that writes a route, over real sockets, and in virtual time where no socket is needed.

use crds::{config::Protocol, units::Address};
use tokio::{net::TcpListener, time::timeout};

use super::*;
use crate::balance::{Backend, Endpoint, Outcome, Picked, Wish};

/// Rules of a listener with these fields.
fn rules(fields: &str) -> Rules {
    let listener = format!("{{name: a, port: 1, sites: []{fields}}}");
    Rules::from(&serde_yaml::from_str::<crds::config::HttpListener>(&listener).unwrap())
}

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
    let (sets, backends) = watch::channel(set(std::slice::from_ref(&a)));
    let input = SiteInput { name: "one".into(), backends, tls: None, protocol: Some(Protocol::Http1) };
    let balancer = Balancer::<()>::start("test", rules(""), vec![input.clone()]);
    let mut route = balancer.route();
    let first = until(&mut route, |route| route.backends.len() == 1).await;
    sets.send_replace(set(&[a.clone(), b]));
    let second = until(&mut route, |route| route.backends.len() == 2).await;
    let (_gone, other) = watch::channel(set(&[a]));
    balancer.update(
        rules(", health: {path: /x}"),
        vec![
            SiteInput { name: "zero".into(), backends: other, tls: None, protocol: Some(Protocol::Http1) },
            input,
        ],
    );
    let third = until(&mut route, |route| route.backends.len() == 3).await;
    let ids = |route: &Route<()>| route.backends.iter().map(|backend| backend.id).collect::<Vec<_>>();
    assert_eq!(ids(&first), ids(&second)[..1]);
    assert_eq!(ids(&second), ids(&third)[1..]);
}

#[tokio::test]
async fn new_sites_take_over_only_once_their_sets_have_answered() {
    let servers =
        [TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap()];
    let [a, b] = servers.each_ref().map(|server| Address::from(server.local_addr().unwrap()));
    let (_before, backends) = watch::channel(set(std::slice::from_ref(&a)));
    let balancer = Balancer::<()>::start(
        "test",
        rules(""),
        vec![SiteInput { name: "one".into(), backends, tls: None, protocol: Some(Protocol::Http1) }],
    );
    let mut route = balancer.route();
    until(&mut route, Route::is_live).await;
    let (after, backends) = watch::channel(Arc::new(BackendSet::default()));
    balancer.update(
        rules(""),
        vec![SiteInput { name: "two".into(), backends, tls: None, protocol: Some(Protocol::Http1) }],
    );
    tokio::task::yield_now().await;
    assert_eq!(route.borrow().backends[0].address, a, "the old set serves");
    after.send_replace(set(std::slice::from_ref(&b)));
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
        rules(""),
        vec![SiteInput { name: "one".into(), backends, tls: None, protocol: Some(Protocol::Http1) }],
    );
    let (_silent, backends) = watch::channel(Arc::new(BackendSet::default()));
    balancer.update(
        rules(""),
        vec![SiteInput { name: "two".into(), backends, tls: None, protocol: Some(Protocol::Http1) }],
    );
    let mut route = balancer.route();
    let taken = route.wait_for(|route| route.unavailable.contains("site two"));
    tokio::time::timeout(2 * ANSWER_TIMEOUT, taken).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_sets_waits_for_silent_ones_no_longer_than_for_a_time() {
    let site = |answered| {
        let (sets, backends) = watch::channel(Arc::new(BackendSet { answered, ..BackendSet::default() }));
        (sets, SiteInput { name: "one".into(), backends, tls: None, protocol: None })
    };
    let ((_first, known), (second, silent)) = (site(true), site(false));
    let start = Instant::now();
    SiteInput::all_known([&known].into_iter(), SiteInput::latest_answer()).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    SiteInput::all_known([&known, &silent].into_iter(), SiteInput::latest_answer()).await;
    assert!(start.elapsed() >= ANSWER_TIMEOUT && start.elapsed() < 2 * ANSWER_TIMEOUT);
    // Who will not answer any more is silent as well.
    drop(second);
    SiteInput::all_known([&known, &silent].into_iter(), SiteInput::latest_answer()).await;
    assert!(start.elapsed() >= 2 * ANSWER_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn updates_in_a_row_take_over_as_soon_as_the_first_of_them_would_have() {
    let silent = |name: &str| {
        let (sets, backends) = watch::channel(Arc::new(BackendSet::default()));
        (sets, SiteInput { name: name.into(), backends, tls: None, protocol: Some(Protocol::Http1) })
    };
    let (_before, backends) = watch::channel(set(&[]));
    let first = SiteInput { name: "one".into(), backends, tls: None, protocol: Some(Protocol::Http1) };
    let balancer = Balancer::<()>::start("test", rules(""), vec![first]);
    let (mut route, start) = (balancer.route(), Instant::now());
    let mut kept = Vec::new();
    while !route.borrow().unavailable.contains("site two") {
        assert!(start.elapsed() < 2 * ANSWER_TIMEOUT, "they never take over");
        let (sets, site) = silent("two");
        kept.push(sets);
        balancer.update(rules(""), vec![site]);
        let _ = timeout(ANSWER_TIMEOUT / 4, route.changed()).await;
    }
}

#[tokio::test]
async fn a_refused_check_takes_a_backend_out_and_says_why() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
    let (_sets, backends) = watch::channel(set(&[closed]));
    let input = SiteInput { name: "one".into(), backends, tls: None, protocol: Some(Protocol::Http1) };
    let balancer = Balancer::<()>::start("test", rules(""), vec![input]);
    let route = until(&mut balancer.route(), |route| !route.is_live()).await;
    assert_eq!(route.unavailable, "site one: the only backend failed its last check: connection refused\n");
}

#[tokio::test]
async fn all_sets_must_answer_once() {
    let silent = || watch::channel(Arc::new(BackendSet::default()));
    let ((first, a), (second, b)) = (silent(), silent());
    let sites = vec![
        SiteInput { name: "a".into(), backends: a, tls: None, protocol: Some(Protocol::Http1) },
        SiteInput { name: "b".into(), backends: b, tls: None, protocol: Some(Protocol::Http1) },
    ];
    let balancer = Balancer::<()>::start("test", rules(""), sites);
    let mut answered = balancer.answered();
    first.send_replace(set(&[]));
    until(&mut balancer.route(), |route| route.unavailable.contains("site a: it has no backends now")).await;
    assert!(!*answered.borrow_and_update());
    second.send_replace(set(&[]));
    timeout(Duration::from_secs(10), answered.wait_for(|answered| *answered)).await.unwrap().unwrap();
}

/// Live servers, and a balancer over them.
async fn serving(
    count: usize,
    fields: &str,
) -> (Vec<TcpListener>, watch::Sender<Arc<BackendSet>>, Balancer<()>) {
    let mut servers = Vec::new();
    for _ in 0..count {
        servers.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let mut addresses: Vec<Address> =
        servers.iter().map(|server| server.local_addr().unwrap().into()).collect();
    addresses.sort();
    let (sets, backends) = watch::channel(set(&addresses));
    let balancer = Balancer::start(
        "test",
        rules(fields),
        vec![SiteInput { name: "one".into(), backends, tls: None, protocol: Some(Protocol::Http1) }],
    );
    (servers, sets, balancer)
}

/// How many of 1000 requests go to a backend.
fn share(route: &Route<()>, backend: &Arc<Backend<()>>) -> usize {
    let mut random = fastrand::Rng::with_seed(5);
    let mut pick = || route.pick(&Wish::default(), |_| false, |below| random.usize(..below));
    let picked = (0..1_000).map(|_| pick());
    picked
        .filter(|picked| matches!(picked, Picked::Backend(index) if Arc::ptr_eq(&route.backends[*index], backend)))
        .count()
}

fn fail(backend: &Backend<()>, times: usize) {
    for _ in 0..times {
        backend.observe(Outcome::ServerError, Duration::ZERO);
    }
}

#[tokio::test]
async fn who_fails_while_another_does_well_is_out_for_its_time() {
    let (_servers, _sets, balancer) = serving(2, ", outlierDetection: {baseEjectionTime: 50ms}").await;
    let mut route = balancer.route();
    let [bad, good] = &route.borrow().backends.clone()[..] else { panic!("not two") };
    fail(bad, 1);
    good.observe(Outcome::Good, Duration::ZERO);
    fail(bad, 4);
    let without = until(&mut route, |route| share(route, bad) == 0).await;
    assert_eq!(share(&without, good), 1_000);
    assert_eq!((bad.ejections(), bad.is_ejected()), (1, true));
    let with = until(&mut route, |route| share(route, bad) > 0).await;
    assert!(share(&with, bad).abs_diff(500) < 60, "without a slow start it has its share at once");
    assert_eq!((bad.is_ejected(), good.ejections()), (false, 0));
}

#[tokio::test]
async fn where_all_fail_alike_nobody_is_out() {
    let (_servers, sets, balancer) = serving(3, "").await;
    let mut route = balancer.route();
    let backends = route.borrow().backends.clone();
    backends.iter().for_each(|backend| backend.observe(Outcome::Good, Duration::ZERO));
    for _ in 0..20 {
        backends.iter().for_each(|backend| fail(backend, 1));
        tokio::task::yield_now().await;
    }
    sets.send_replace(set(&[]));
    until(&mut route, |route| route.backends.is_empty()).await;
    assert!(backends.iter().all(|backend| backend.ejections() == 0));
}

#[tokio::test]
async fn switching_it_off_ends_an_ejection() {
    let (_servers, _sets, balancer) = serving(2, "").await;
    let mut route = balancer.route();
    let backends = route.borrow().backends.clone();
    fail(&backends[0], 1);
    backends[1].observe(Outcome::Good, Duration::ZERO);
    fail(&backends[0], 4);
    until(&mut route, |route| share(route, &backends[0]) == 0).await;
    let sites = balancer.plan.borrow().sites.clone();
    balancer.update(rules(", outlierDetection: {consecutiveErrors: 0}"), sites);
    until(&mut route, |route| share(route, &backends[0]) > 0).await;
    assert!(!backends[0].is_ejected());
}

#[tokio::test]
async fn a_new_backend_starts_slowly_and_the_first_ones_do_not() {
    let (_servers, sets, balancer) = serving(1, ", slowStart: 1h").await;
    let mut route = balancer.route();
    let first = route.borrow().backends[0].clone();
    assert_eq!(share(&route.borrow(), &first), 1_000);
    let new = TcpListener::bind("127.0.0.1:0").await.unwrap();
    sets.send_replace(set(&[first.address.clone(), new.local_addr().unwrap().into()]));
    let both = until(&mut route, |route| route.backends.len() == 2).await;
    assert!(share(&both, &both.backends[1]).abs_diff(91) < 30, "a tenth of the other's share");
    let sites = balancer.plan.borrow().sites.clone();
    balancer.update(rules(", slowStart: 100ms"), sites);
    until(&mut route, |route| share(route, &route.backends[1]).abs_diff(500) < 60).await;
}

#[tokio::test]
async fn a_new_backend_is_taken_for_as_slow_as_the_others_until_it_has_answered() {
    let (_servers, sets, balancer) = serving(1, ", balance: PeakEwma").await;
    let mut route = balancer.route();
    let first = route.borrow().backends[0].clone();
    first.observe(Outcome::Good, Duration::from_secs(2));
    sets.send_replace(set(&[first.address.clone(), "127.0.0.1:1".parse().unwrap()]));
    let both = until(&mut route, |route| route.backends.len() == 2).await;
    assert!(both.backends[1].latency.micros() > 1_000_000);
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    let fallen = async {
        while first.latency.micros() >= 2_000_000 {
            tick.tick().await;
        }
    };
    timeout(Duration::from_secs(10), fallen).await.expect("the estimate falls in time");
}

#[tokio::test]
async fn where_backends_start_down_the_first_good_check_brings_each_into_traffic() {
    let (_servers, sets, balancer) = serving(1, ", slowStart: 1h, health: {initial: Down}").await;
    let mut route = balancer.route();
    assert_eq!(route.borrow().unavailable, "site one: the only backend was not checked yet\n");
    assert!(!route.borrow().is_live());
    let live = until(&mut route, Route::is_live).await;
    let first = live.backends[0].clone();
    assert_eq!(share(&live, &first), 1_000);
    sets.send_replace(set(&["127.0.0.1:1".parse().unwrap(), first.address.clone()]));
    let refused = until(&mut route, |route| {
        assert_eq!(share(route, &first), 1_000, "what was not checked takes nothing");
        route.backends.iter().any(|backend| backend.condition().is_down())
    })
    .await;
    assert_eq!((refused.backends.len(), first.last_downtime()), (2, None));
}
