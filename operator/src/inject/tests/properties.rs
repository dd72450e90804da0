//! For any pod: nothing of the user's is lost or changed, injecting twice is injecting once, and nothing panics.

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::{super::*, NATIVE, ORDINARY, decide, patched, policy};

/// JSON of any kind, as fields that this release does not know may hold.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z~/ \"\\\\é]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z~/]{1,6}", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn named(prefix: &'static str) -> impl Strategy<Value = Value> {
    (0..5u8, any_json(), prop::option::of(1..=65535u16)).prop_map(move |(index, extra, port)| {
        let mut item = json!({"name": format!("{prefix}{index}"), "extra": extra});
        if let Some(port) = port {
            item["ports"] = json!([{"containerPort": port}]);
        }
        item
    })
}

fn list(prefix: &'static str) -> impl Strategy<Value = Option<Value>> {
    prop::option::of(prop_oneof![
        9 => prop::collection::vec(named(prefix), 0..4).prop_map(Value::from),
        1 => Just(Value::Null),
    ])
}

/// An opted-in pod with whatever a user may have.
fn any_pod() -> impl Strategy<Value = Value> {
    let annotations = prop::collection::btree_map("[a-z]{1,5}[~/][a-z~]{1,5}", "[ -~]{0,8}", 0..3);
    let extra = prop::collection::btree_map("[a-z]{9,12}", any_json(), 0..3);
    (annotations, list("app"), list("init"), list("volume"), extra).prop_map(
        |(annotations, containers, init_containers, volumes, extra)| {
            let mut map: Map<String, Value> =
                annotations.into_iter().map(|(key, value)| (key, value.into())).collect();
            map.insert("sidecar.io/inject".to_owned(), "true".into());
            let mut spec: Map<String, Value> = extra.into_iter().collect();
            for (key, value) in
                [("containers", containers), ("initContainers", init_containers), ("volumes", volumes)]
            {
                if let Some(value) = value {
                    spec.insert(key.to_owned(), value);
                }
            }
            json!({"metadata": {"generateName": "web-", "annotations": map}, "spec": spec})
        },
    )
}

/// Whether all of `small` is in `large`: every field, and every item of a list in its order. Null counts as absent.
fn contains(large: &Value, small: &Value) -> bool {
    match (large, small) {
        (_, Value::Null) => true,
        (Value::Object(large), Value::Object(small)) => small.iter().all(|(key, value)| {
            value.is_null() || large.get(key).is_some_and(|other| contains(other, value))
        }),
        (Value::Array(large), Value::Array(small)) => {
            let mut rest = large.iter();
            small.iter().all(|item| rest.any(|other| other == item))
        }
        _ => large == small,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_the_users_is_lost_and_twice_is_once(pod in any_pod(), native in any::<bool>()) {
        let platform = if native { NATIVE } else { ORDINARY };
        let policies = [policy("data", json!({"http": [{"name": "a", "port": 9000, "sites": []}]}))];
        match decide(&pod, &policies, platform) {
            Decision::Inject { patch, .. } => {
                let once = patched(&pod, &patch);
                prop_assert!(contains(&once, &pod), "{once:#} lacks something of {pod:#}");
                let again = decide(&once, &policies, platform);
                prop_assert!(
                    matches!(&again, Decision::Inject { patch, generation: 3, .. } if patch.is_empty()),
                    "the second pass: {again:?}"
                );
            }
            Decision::Deny { error: InjectError::ListenerPort { .. } | InjectError::AdminPort { .. } } => {}
            other => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn whatever_a_pod_is_there_is_a_decision(metadata in any_json(), spec in any_json(), whole in any_json()) {
        let policies = [policy("data", json!({}))];
        decide(&whole, &policies, NATIVE);
        decide(&json!({"metadata": metadata, "spec": spec}), &policies, NATIVE);
        let annotations = json!({"sidecar.io/inject": "true"});
        decide(&json!({"metadata": {"annotations": annotations, "labels": metadata}, "spec": spec}), &policies, NATIVE);
        let lists = json!({"containers": spec, "initContainers": whole, "volumes": metadata});
        decide(&json!({"metadata": {"annotations": annotations}, "spec": lists}), &policies, NATIVE);
    }
}
