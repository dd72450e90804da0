//! Routes by table: who is planned to take traffic, and who gets a request.

use proptest::prelude::*;

use super::*;
use crate::balance::{Nearness, Unavailable, outcome::Outcome};

const UP: Condition = Condition::Up;
const UNKNOWN: Condition = Condition::Unknown;
const AWAITED: Condition = Condition::Awaited;
const FAILED: Condition = Condition::Down(Cause::Failed);
const REFUSED: Condition = Condition::Down(Cause::Refused);

/// A backend as a test describes it.
#[derive(Debug, Clone, Copy)]
struct Is {
    condition: Condition,
    terminating: bool,
    ejected: bool,
    weight: u32,
    zone: Nearness,
    hinted: Nearness,
}

fn is(condition: Condition) -> Is {
    let unknown = Nearness::Unknown;
    Is { condition, terminating: false, ejected: false, weight: 1, zone: unknown, hinted: unknown }
}

impl Is {
    fn terminating(self) -> Self {
        Self { terminating: true, ..self }
    }

    fn ejected(self) -> Self {
        Self { ejected: true, ..self }
    }

    fn weight(self, weight: u32) -> Self {
        Self { weight, ..self }
    }

    fn hinted(self, hinted: Nearness) -> Self {
        Self { hinted, ..self }
    }

    fn zone(self, zone: Nearness) -> Self {
        Self { zone, ..self }
    }
}

fn site(name: &str, backends: &[Is]) -> SiteState<()> {
    let endpoint = |(is, port): (&Is, u16)| Endpoint {
        terminating: is.terminating,
        weight: is.weight,
        zone: is.zone,
        hinted: is.hinted,
        ..Endpoint::at(([127, 0, 0, 1], port))
    };
    let endpoints: Vec<_> = backends.iter().zip(1u16..).map(endpoint).collect();
    let member = |(is, endpoint): (&Is, &Endpoint)| Member {
        backend: Arc::new(Backend::new(
            name.into(),
            endpoint.address.clone(),
            None,
            Arc::default(),
            Default::default(),
        )),
        condition: is.condition,
        failure: is.condition.is_down().then(|| "connection refused".to_owned()),
        ejected: is.ejected,
        weight: is.weight,
    };
    let members = backends.iter().zip(&endpoints).map(member).collect();
    let set = BackendSet { endpoints, unavailable: Vec::new(), answered: true };
    SiteState { name: name.into(), set: Arc::new(set), members }
}

/// Rules of a listener with these fields.
fn rules(fields: &str) -> Rules {
    let listener = format!("{{name: a, port: 1, sites: []{fields}}}");
    Rules::from(&serde_yaml::from_str::<crds::config::HttpListener>(&listener).unwrap())
}

fn plan(sites: &[SiteState<()>]) -> Route<()> {
    plan_by("", sites)
}

fn plan_by(fields: &str, sites: &[SiteState<()>]) -> Route<()> {
    Route::plan(sites, &rules(fields), &Arc::default())
}

fn name(backend: &Backend<()>) -> String {
    format!("{}{}", backend.site, backend.address.ip().unwrap().port())
}

/// How many of 1000 requests go to each backend, by site and port.
fn shares(route: &Route<()>) -> Vec<(String, usize)> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut shares = std::collections::BTreeMap::<_, usize>::new();
    for _ in 0..1_000 {
        if let Picked::Backend(index) = route.pick(&Wish::default(), |_| false, |below| random.usize(..below))
        {
            *shares.entry(name(&route.backends[index])).or_default() += 1;
        }
    }
    shares.into_iter().collect()
}

fn targets(route: &Route<()>) -> Vec<String> {
    shares(route).into_iter().map(|(target, _)| target).collect()
}

#[test]
fn the_first_site_with_a_live_backend_takes_all_traffic() {
    let table: [(&[Is], &[&str]); 8] = [
        (&[is(UP), is(UP)], &["a1", "a2"]),
        (&[is(UNKNOWN), is(FAILED)], &["a1"]),
        (&[is(AWAITED), is(UP)], &["a2"]),
        (&[is(AWAITED), is(AWAITED)], &["b1"]),
        (&[is(UP), is(UP).terminating()], &["a1"]),
        (&[is(FAILED), is(UP).terminating()], &["a2"]),
        (&[is(FAILED), is(REFUSED).terminating()], &["b1"]),
        (&[], &["b1"]),
    ];
    for (a, expected) in table {
        assert_eq!(targets(&plan(&[site("a", a), site("b", &[is(UP)])])), expected, "{a:?}");
    }
}

#[test]
fn checks_alone_never_take_the_last_site_away_unless_that_is_wanted() {
    let table: [(&[Is], &[Is], &[&str]); 6] = [
        (&[is(FAILED)], &[is(AWAITED)], &[]),
        (&[is(FAILED)], &[is(FAILED), is(FAILED)], &["b1", "b2"]),
        (&[is(FAILED)], &[is(FAILED), is(REFUSED)], &["b1"]),
        (&[is(FAILED)], &[is(REFUSED)], &[]),
        (&[is(FAILED)], &[], &["a1"]),
        (&[is(FAILED)], &[is(FAILED), is(FAILED).weight(0)], &["b1"]),
    ];
    for (a, b, expected) in table {
        let sites = [site("a", a), site("b", b)];
        assert_eq!(targets(&plan(&sites)), expected, "{a:?} {b:?}");
        assert!(!plan_by(", health: {panic: false}", &sites).is_live());
    }
}

#[test]
fn ejection_moves_traffic_and_never_makes_an_outage() {
    let table: [(&[Is], &[Is], &[&str]); 5] = [
        (&[is(UP).ejected(), is(UP)], &[is(UP)], &["a2"]),
        (&[is(UP).ejected(), is(UP).terminating()], &[is(UP)], &["a2"]),
        (&[is(UP).ejected()], &[is(UP)], &["b1"]),
        (&[is(UP).ejected(), is(FAILED)], &[is(REFUSED)], &["a1"]),
        (&[is(FAILED)], &[is(UP).ejected(), is(FAILED)], &["b1"]),
    ];
    for (a, b, expected) in table {
        assert_eq!(targets(&plan(&[site("a", a), site("b", b)])), expected, "{a:?} {b:?}");
    }
}

#[test]
fn weight_0_takes_no_requests_and_says_so() {
    let drained = is(UP).weight(0);
    let route = plan(&[site("a", &[drained, is(UP)]), site("b", &[is(UP)])]);
    assert_eq!(targets(&route), ["a2"]);
    assert!(!route.has_another(|id| id == route.backends[1].id || id == route.backends[2].id));
    assert_eq!(targets(&plan(&[site("a", &[drained, drained]), site("b", &[is(UP)])])), ["b1"]);
    let none = plan(&[site("a", &[drained])]);
    assert!(!none.is_live());
    assert_eq!(none.unavailable, "site a: 1 of 1 backends have weight 0, which takes no requests\n");
}

#[test]
fn weights_are_shares() {
    let shares = shares(&plan(&[site("a", &[is(UP).weight(3), is(UP)])]));
    assert!(shares[0].1.abs_diff(750) < 60 && shares[0].1 + shares[1].1 == 1_000, "{shares:?}");
}

#[test]
fn a_suspect_is_used_only_when_there_is_nothing_else() {
    let route = plan(&[site("a", &[is(UP), is(UP)]), site("b", &[is(UP)])]);
    let suspect = |index: usize| route.backends[index].observe(Outcome::ConnectFailed, Default::default());
    suspect(0);
    assert_eq!(targets(&route), ["a2"]);
    suspect(1);
    assert_eq!(targets(&route), ["b1"]);
    suspect(2);
    assert_eq!(targets(&route), ["a1", "a2"]);
}

#[test]
fn the_own_zone_is_preferred_while_enough_of_it_serves() {
    use Nearness::{Elsewhere, Here};
    let (here, there) = (is(UP).hinted(Here), is(UP).hinted(Elsewhere));
    let down = is(FAILED).hinted(Here);
    for (members, expected) in [
        (vec![here, there, there], [1_000, 0]),
        (vec![here, here, here, down, there], [1_000, 0]),
        (vec![here, down, there], [714, 286]),
        (vec![here, down, down, there], [476, 524]),
        (vec![here, here.ejected(), there], [714, 286]),
        (vec![here, here.terminating(), there], [1_000, 0]),
        (vec![down, there], [0, 1_000]),
        (vec![here, down], [1_000, 0]),
    ] {
        let near: Vec<_> = (1..).zip(&members).filter(|(_, is)| is.hinted == Here).map(|(p, _)| p).collect();
        let shares = shares(&plan(&[site("a", &members)]));
        let to_near: usize = shares
            .iter()
            .filter(|(name, _)| near.iter().any(|port: &i32| *name == format!("a{port}")))
            .map(|(_, share)| share)
            .sum();
        assert!(to_near.abs_diff(expected[0]) < 50, "{to_near} for {expected:?}: {members:?}");
        if [0, 1_000].contains(&expected[0]) {
            assert_eq!(to_near, expected[0], "{members:?}");
        }
    }
}

#[test]
fn hints_are_followed_as_kube_proxy_does_and_zones_where_that_is_wanted() {
    use Nearness::{Elsewhere, Here};
    let mode = |mode: &str| format!(", trafficDistribution: {mode}");
    let both = ["a1", "a2"];
    let hinted = [is(UP).hinted(Here), is(UP).hinted(Elsewhere)];
    let half = [is(UP).hinted(Here), is(UP)];
    let elsewhere = [is(UP).hinted(Elsewhere), is(UP).hinted(Elsewhere)];
    let zoned = [is(UP).zone(Here), is(UP).zone(Elsewhere)];
    let hints_win = [is(UP).zone(Here).hinted(Elsewhere), is(UP).zone(Elsewhere).hinted(Here)];
    for (distribution, members, expected) in [
        ("Auto", hinted, &["a1"][..]),
        ("Auto", half, &both),
        ("Auto", elsewhere, &both),
        ("Auto", zoned, &both),
        ("PreferSameZone", zoned, &["a1"]),
        ("PreferSameZone", hints_win, &["a2"]),
        ("PreferSameZone", [is(UP), is(UP)], &both),
        ("None", hinted, &both),
    ] {
        let route = plan_by(&mode(distribution), &[site("a", &members)]);
        assert_eq!(targets(&route), expected, "{distribution} {members:?}");
    }
}

#[test]
fn a_full_backend_is_passed_over_and_a_full_site_is_not() {
    let route = plan_by(
        ", backendLimits: {maxRequests: 2}",
        &[site("a", &[is(UP), is(UP), is(UP).terminating()]), site("b", &[is(UP)])],
    );
    let pick = || route.pick(&Wish::default(), |_| false, |below| below - 1);
    let mut busy: Vec<_> = (0..2).map(|_| route.backends[0].occupy()).collect();
    assert_eq!(targets(&route), ["a2"]);
    busy.extend((0..2).map(|_| route.backends[1].occupy()));
    assert_eq!(targets(&route), ["a3"], "one that is terminating still serves");
    busy.extend((0..2).map(|_| route.backends[2].occupy()));
    assert_eq!(pick(), Picked::Full, "the next site is for outages");
    assert!(route.has_another(|id| id != route.backends[3].id));
    assert!(!route.has_another(|id| id == route.backends[3].id));
    busy.truncate(5);
    assert_eq!(pick(), Picked::Backend(2));
}

#[test]
fn a_hash_sticks_to_a_backend_while_it_can_serve() {
    let all = [is(UP), is(UP), is(UP), is(UP)];
    let fields = ", balance: HeaderHash, hashHeader: X-Tenant";
    let route = plan_by(fields, &[site("a", &all)]);
    assert_eq!(route.hash_header(), Some("x-tenant"));
    let pick = |route: &Route<()>, key: u64, tried: &[u64]| {
        let wish = Wish { hash: Some(hash(&key.to_le_bytes())) };
        match route.pick(&wish, |id| tried.contains(&id), |_| 0) {
            Picked::Backend(index) => name(&route.backends[index]),
            other => panic!("{other:?}"),
        }
    };
    let mut without_third = all;
    without_third[2] = is(FAILED);
    let changed = plan_by(fields, &[site("a", &without_third)]);
    for key in 0..200 {
        let before = pick(&route, key, &[]);
        assert_eq!(pick(&route, key, &[]), before);
        let after = pick(&changed, key, &[]);
        assert!(before == after || before == "a3", "{before} {after}");
        let first = route.backends.iter().find(|backend| name(backend) == before).unwrap().id;
        assert_ne!(pick(&route, key, &[first]), before, "a second try goes elsewhere");
    }
}

#[test]
fn the_reason_names_each_site_and_what_it_lacks() {
    let mut missing = site("primary", &[]);
    missing.set = Arc::new(BackendSet {
        endpoints: Vec::new(),
        unavailable: vec![Unavailable {
            what: "Service storage/minio".into(),
            message: "does not exist".into(),
        }],
        answered: true,
    });
    let route = plan(&[
        missing,
        site("recovery", &[is(REFUSED), is(REFUSED)]),
        site("new", &[is(AWAITED), is(REFUSED)]),
        site("last", &[]),
    ]);
    assert_eq!(
        route.unavailable,
        "site primary: Service storage/minio: does not exist\n\
         site recovery: all 2 backends failed their last check: connection refused\n\
         site new: 1 of 2 backends failed their last check: connection refused; 1 of 2 backends were not checked yet\n\
         site last: it has no backends now\n"
    );
}

fn any_backend() -> impl Strategy<Value = Is> {
    let nearness = || prop::sample::select(vec![Nearness::Unknown, Nearness::Here, Nearness::Elsewhere]);
    let flags = (0u8..5, any::<bool>(), any::<bool>(), 0u32..4);
    (flags, nearness(), nearness()).prop_map(|((code, terminating, ejected, weight), zone, hinted)| Is {
        condition: Condition::from_code(code),
        terminating,
        ejected,
        weight,
        zone,
        hinted,
    })
}

proptest! {
    #[test]
    fn what_was_tried_is_never_picked_again_and_all_are_tried(
        a in prop::collection::vec(any_backend(), 1..6), b in prop::collection::vec(any_backend(), 0..4),
        balance in prop::sample::select(vec!["LeastRequest", "PeakEwma", "RoundRobin", "Random", "HeaderHash"]),
        hash: Option<u64>,
    ) {
        let fields = format!(", balance: {balance}, trafficDistribution: PreferSameZone");
        let route = plan_by(&fields, &[site("a", &a), site("b", &b)]);
        let mut tried = Vec::new();
        let mut random = fastrand::Rng::with_seed(3);
        loop {
            let another = route.has_another(|id| tried.contains(&id));
            let picked = route.pick(&Wish { hash }, |id| tried.contains(&id), |below| random.usize(..below));
            prop_assert_eq!(matches!(picked, Picked::Backend(_)), another);
            let Picked::Backend(index) = picked else { break };
            let is = a.iter().chain(&b).nth(index).unwrap();
            prop_assert!(is.weight > 0 && ![REFUSED, AWAITED].contains(&is.condition));
            prop_assert!(!tried.contains(&route.backends[index].id));
            tried.push(route.backends[index].id);
        }
        prop_assert_eq!(!tried.is_empty(), route.is_live());
    }
}
