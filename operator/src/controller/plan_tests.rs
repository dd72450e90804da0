use std::sync::Arc;

use crds::config::SidecarConfig;
use k8s_openapi::api::{core::v1::ConfigMap, rbac::v1::Role};

use super::*;
use crate::controller::{
    facts::{NamespaceFact, OwnedFact},
    testing,
};

fn surroundings() -> Surroundings {
    let settings =
        Settings { sidecar_image: "sidecar:1".to_owned(), operator_namespace: "sidecar-system".to_owned() };
    Surroundings { settings, endpoint_slices: true }
}

fn names(plan: &Plan) -> Vec<String> {
    plan.apply.iter().map(|object| format!("{} {}", object.kind(), object.key())).collect()
}

fn config_map(plan: &Plan) -> &ConfigMap {
    let Desired::ConfigMap(object) = &plan.apply[0] else { panic!("the ConfigMap comes first") };
    object
}

fn role<'a>(plan: &'a Plan, namespace: &str) -> &'a Role {
    plan.apply
        .iter()
        .find_map(|object| match object {
            Desired::Role(role) if object.key().namespace == namespace => Some(&**role),
            _ => None,
        })
        .unwrap()
}

fn resources(role: &Role) -> Vec<String> {
    let rules = role.rules.as_ref().unwrap();
    rules.iter().flat_map(|rule| rule.resources.clone().unwrap()).collect()
}

#[test]
fn configuration_and_role_come_before_any_pod() {
    let world = World::default();
    let fact = testing::policy(&world, "a", "data", "backends: [{addresses: ['10.0.0.{1...2}:80']}]");
    let plan = plan(&fact, &world, &surroundings());
    assert_eq!(names(&plan), ["ConfigMap a/sidecar-data", "Role a/sidecar-data"]);
    assert_eq!(plan.verdicts.ready.truth, Truth::True, "{:?}", plan.verdicts);

    let text = &config_map(&plan).data.as_ref().unwrap()["sidecar.v1.yaml"];
    let config: SidecarConfig = serde_yaml::from_str(text).unwrap();
    assert_eq!(config.policy.unwrap().generation, 1);
    assert_eq!(resources(role(&plan, "a")), ["configmaps"]);
    let rules = role(&plan, "a").rules.clone().unwrap();
    assert_eq!(rules[0].resource_names, Some(vec!["sidecar-data".to_owned()]));
}

#[test]
fn rights_reach_exactly_the_namespaces_in_use() {
    let world = World::default();
    world.namespaces.set(Key::new("", "b"), Some(NamespaceFact::exporting_to("a")));
    world.namespaces.set(Key::new("", "c"), Some(NamespaceFact::exporting_to("z")));
    for namespace in ["a", "b", "c"] {
        testing::service(&world, namespace, "web", &[("", 80)]);
    }
    let backends = "backends: [{service: {name: web, port: 80}}, {service: {name: web, namespace: b, port: 80}}, \
                    {service: {name: web, namespace: c, port: 80}}]";
    let fact = testing::policy(&world, "a", "data", backends);
    testing::pod(
        &world,
        "a",
        "pod",
        &[("sidecar.io/injected-policy", "data"), ("sidecar.io/service-account", "runner")],
    );
    let plan = plan(&fact, &world, &surroundings());
    assert_eq!(
        names(&plan),
        [
            "ConfigMap a/sidecar-data",
            "Role a/sidecar-data",
            "Role b/sidecar.a.data",
            "RoleBinding a/sidecar-data",
            "RoleBinding b/sidecar.a.data"
        ]
    );
    assert_eq!(resources(role(&plan, "a")), ["configmaps", "endpointslices"]);
    assert_eq!(resources(role(&plan, "b")), ["endpointslices"]);
    assert_eq!(plan.verdicts.resolved.reason, "RefNotPermitted");
    let truths = (plan.verdicts.accepted.truth, plan.verdicts.ready.truth);
    assert_eq!(truths, (Truth::True, Truth::False));
    let Desired::RoleBinding(binding) = &plan.apply[4] else { panic!("a RoleBinding") };
    let subject = &binding.subjects.as_ref().unwrap()[0];
    assert_eq!((subject.name.as_str(), subject.namespace.as_deref()), ("runner", Some("a")));
}

#[test]
fn core_endpoints_are_granted_only_where_slices_are_absent() {
    let world = World::default();
    testing::service(&world, "a", "web", &[("", 80)]);
    let fact = testing::policy(&world, "a", "data", "backends: [{service: {name: web, port: 80}}]");
    let without = Surroundings { endpoint_slices: false, ..surroundings() };
    assert_eq!(resources(role(&plan(&fact, &world, &without), "a")), ["configmaps", "endpoints"]);
}

#[test]
fn what_the_policy_stops_using_is_removed_rights_first() {
    let world = World::default();
    let fact = testing::policy(&world, "a", "data", "backends: [{addresses: ['10.0.0.1:80']}]");
    let owned = |policy: &str| {
        Some(OwnedFact { policy: Key::new("a", policy), uid: "u".to_owned(), digest: Default::default() })
    };
    for kind in [Kind::Role, Kind::RoleBinding] {
        world.owned(kind).set(Key::new("b", "sidecar.a.data"), owned("data"));
        world.owned(kind).set(Key::new("b", "sidecar.a.other"), owned("other"));
    }
    world.owned(Kind::ConfigMap).set(Key::new("a", "sidecar-data"), owned("data"));
    let removed: Vec<String> = plan(&fact, &world, &surroundings())
        .remove
        .iter()
        .map(|stale| format!("{} {}", stale.kind, stale.key))
        .collect();
    assert_eq!(removed, ["RoleBinding b/sidecar.a.data", "Role b/sidecar.a.data"]);
}

#[test]
fn a_policy_that_is_not_accepted_changes_nothing() {
    let world = World::default();
    let good = testing::policy(&world, "a", "data", "backends: [{addresses: ['10.0.0.1:80']}]");
    world.owned(Kind::Role).set(
        Key::new("b", "sidecar.a.data"),
        Some(OwnedFact { policy: good.key.clone(), uid: "u".to_owned(), digest: Default::default() }),
    );
    let unreadable = PolicyFact { policy: Err("missing field `port`".to_owned()), ..(*good).clone() };
    let named = PolicyFact { key: Key::new("a", "x".repeat(64)), ..(*good).clone() };
    let mut policy = (**good.policy.as_ref().unwrap()).clone();
    let address = format!("[{}]:80", "0:".repeat(7) + "1");
    let addresses = vec![address.parse().unwrap(); 50_000];
    policy.spec.http[0].sites[0].backends[0].addresses = Some(addresses);
    let large = PolicyFact { policy: Ok(Arc::new(policy)), ..(*good).clone() };
    for (fact, reason) in [(unreadable, "Unreadable"), (named, "NameTooLong"), (large, "TooLarge")] {
        let plan = plan(&fact, &world, &surroundings());
        assert_eq!(plan.verdicts.accepted.reason, reason);
        let truths = (plan.verdicts.accepted.truth, plan.verdicts.ready.truth);
        assert_eq!(truths, (Truth::False, Truth::False));
        assert!(plan.apply.is_empty() && plan.remove.is_empty(), "{reason}");
    }
}
