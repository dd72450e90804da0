//! Which policy wins, and what is said when none does.

use std::{collections::BTreeMap, sync::Arc};

use crds::policy::SidecarPolicy;
use serde_json::{Value, json};

use super::{
    super::select::{Choice, choose},
    NATIVE, denial, pod, policy,
};

fn created(policy: Arc<SidecarPolicy>, time: &str) -> Arc<SidecarPolicy> {
    let mut policy = SidecarPolicy::clone(&policy);
    policy.metadata.creation_timestamp = Some(serde_json::from_value(json!(time)).unwrap());
    Arc::new(policy)
}

fn chosen(
    policies: &[Arc<SidecarPolicy>],
    labels: &[(&str, &str)],
    named: Option<&str>,
) -> Result<String, Choice> {
    let labels = labels.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let annotations: BTreeMap<String, String> =
        named.map(|name| ("sidecar.io/policy".to_owned(), name.to_owned())).into_iter().collect();
    match choose(policies, "analytics", &labels, &annotations) {
        Choice::Chosen(policy) => Ok(policy.metadata.name.clone().unwrap()),
        other => Err(other),
    }
}

#[test]
fn the_highest_priority_wins_then_the_oldest_then_the_first_name() {
    let (early, late) = ("2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
    let low = created(policy("a-low", json!({"priority": -1})), early);
    let old = created(policy("z-old", json!({})), early);
    let young = created(policy("b-young", json!({})), late);
    let twin = created(policy("y-twin", json!({})), early);
    let timeless = policy("a-timeless", json!({}));
    let high = created(policy("z-high", json!({"priority": 1})), late);
    let mut all = vec![low, timeless, young, old, twin, high];
    for expected in ["z-high", "y-twin", "z-old", "b-young", "a-timeless", "a-low"] {
        assert_eq!(chosen(&all, &[], None).unwrap(), expected);
        all.reverse();
        assert_eq!(chosen(&all, &[], None).unwrap(), expected, "the order of the list has no say");
        all.retain(|policy| policy.metadata.name.as_deref() != Some(expected));
    }
}

#[test]
fn a_named_policy_is_taken_whatever_it_selects() {
    let policies = [
        policy("data", json!({"podSelector": {"matchLabels": {"team": "x"}}})),
        policy("any", json!({"priority": 9})),
    ];
    assert_eq!(chosen(&policies, &[], Some("data")).unwrap(), "data");
    let missing =
        Choice::Missing { name: "typo".to_owned(), existing: vec!["any".to_owned(), "data".to_owned()] };
    assert_eq!(chosen(&policies, &[], Some("typo")).unwrap_err(), missing);
    let message = denial(&pod(&[("sidecar.io/policy", "typo")]), &policies, NATIVE);
    assert!(message.contains("\"typo\"") && message.contains("write one of any, data"), "{message}");
}

#[test]
fn a_policy_of_another_namespace_is_never_chosen() {
    let mut foreign = SidecarPolicy::clone(&policy("data", json!({})));
    foreign.metadata.namespace = Some("other".to_owned());
    let foreign = [Arc::new(foreign)];
    assert_eq!(chosen(&foreign, &[], None).unwrap_err(), Choice::None { reasons: Vec::new() });
    assert!(matches!(chosen(&foreign, &[], Some("data")), Err(Choice::Missing { .. })));
}

#[test]
fn selectors_select_as_kubernetes_selects_and_say_why_not() {
    let labels = [("team", "data"), ("tier", "web")];
    let expression = |operator: &str, key: &str, values: Value| json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]});
    for selector in [
        json!({}),
        json!({"matchLabels": {"team": "data"}}),
        expression("In", "team", json!(["x", "data"])),
        expression("NotIn", "team", json!(["x"])),
        expression("NotIn", "absent", json!(["x"])),
        expression("Exists", "tier", json!(null)),
        expression("DoesNotExist", "absent", json!([])),
    ] {
        let policies = [policy("data", json!({"podSelector": selector}))];
        assert!(chosen(&policies, &labels, None).is_ok(), "{selector}");
    }
    for (selector, why) in [
        (json!({"matchLabels": {"team": "ml"}}), "it wants label team=ml and the pod has \"data\""),
        (json!({"matchLabels": {"zone": "a"}}), "it wants label zone=a and the pod has no zone"),
        (
            expression("In", "team", json!(["a", "b"])),
            "it wants label team to be one of a, b and the pod has \"data\"",
        ),
        (
            expression("NotIn", "team", json!(["data"])),
            "it wants label team to be none of data and the pod has \"data\"",
        ),
        (expression("Exists", "zone", json!([])), "it wants a label zone and the pod has no zone"),
        (expression("DoesNotExist", "team", json!([])), "it wants no label team and the pod has \"data\""),
        (
            expression("in", "team", json!(["data"])),
            "its podSelector is invalid: operator \"in\" is not one of",
        ),
        (expression("In", "team", json!([])), "its podSelector is invalid: In of team needs values"),
    ] {
        let policies = [policy("data", json!({"podSelector": selector}))];
        match chosen(&policies, &labels, None) {
            Err(Choice::None { reasons }) => assert!(reasons[0].1.starts_with(why), "{:?}", reasons[0]),
            other => panic!("{selector}: {other:?}"),
        }
    }
}

#[test]
fn the_denial_names_each_policy_and_why_it_does_not_select_the_pod() {
    let policies = [
        policy("data", json!({"podSelector": {"matchLabels": {"team": "data"}}})),
        policy("web", json!({"podSelector": {"matchLabels": {"tier": "web"}}})),
    ];
    let message = denial(&pod(&[]), &policies, NATIVE);
    for part in [
        "namespace analytics",
        "data: it wants label team=data",
        "web: it wants label tier=web",
        "podSelector",
    ] {
        assert!(message.contains(part), "{message}");
    }
    let many: Vec<_> = (0..500)
        .map(|i| policy(&format!("p{i}"), json!({"podSelector": {"matchLabels": {"a": "b".repeat(5000)}}})))
        .collect();
    let message = denial(&pod(&[]), &many, NATIVE);
    assert!(message.contains("and 490 more") && message.len() < 5_000, "{}", message.len());
}
