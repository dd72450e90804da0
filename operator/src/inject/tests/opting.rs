//! Who is injected, who is left alone, who is refused.

use serde_json::{Value, json};

use super::{super::*, NATIVE, ORDINARY, decide, denial, injected, patched, pod, policy, settings};

#[test]
fn a_pod_that_did_not_opt_in_is_left_alone() {
    for metadata in [
        json!({}),
        json!({"annotations": {}}),
        json!({"annotations": null}),
        json!({"annotations": {"a": "b"}}),
    ] {
        let pod = json!({"metadata": metadata, "spec": {"containers": []}});
        assert!(matches!(decide(&pod, &[], NATIVE), Decision::Skip { .. }), "{pod}");
    }
    assert!(matches!(decide(&json!({}), &[], NATIVE), Decision::Skip { .. }));
    assert!(matches!(decide(&Value::Null, &[], NATIVE), Decision::Skip { .. }));
    assert!(matches!(decide(&pod(&[("sidecar.io/inject", "false")]), &[], NATIVE), Decision::Skip { .. }));
}

#[test]
fn any_other_value_than_true_and_false_is_denied_with_the_remedy() {
    for value in ["yes", "True", "1", "", " true", &"x".repeat(1000)] {
        let message = denial(&pod(&[("sidecar.io/inject", value)]), &[policy("data", json!({}))], NATIVE);
        assert!(message.contains("write \"true\"") && message.contains("\"false\""), "{message}");
        assert!(message.len() < 300, "{message}");
    }
    let mut unquoted = pod(&[]);
    unquoted["metadata"]["annotations"]["sidecar.io/inject"] = json!(true);
    assert!(denial(&unquoted, &[], NATIVE).contains("quotes"));
}

#[test]
fn system_namespaces_and_mirror_pods_are_never_injected_and_the_user_is_told() {
    let policies = [policy("data", json!({}))];
    for namespace in ["kube-system", "sidecar-system"] {
        let pod = pod(&[]);
        match inject(&Request { pod: &pod, namespace }, &policies, NATIVE, &settings()) {
            Decision::Skip { warnings, .. } => assert!(warnings[0].contains(namespace), "{warnings:?}"),
            other => panic!("{other:?}"),
        }
    }
    let mirror = pod(&[("kubernetes.io/config.mirror", "abc")]);
    assert!(matches!(decide(&mirror, &policies, NATIVE), Decision::Skip { .. }));
}

#[test]
fn without_any_policy_the_denial_says_how_to_apply_one() {
    let message = denial(&pod(&[]), &[], NATIVE);
    assert!(
        message.contains("namespace analytics has no SidecarPolicy") && message.contains("kubectl apply"),
        "{message}"
    );
}

#[test]
fn a_container_or_volume_of_the_users_with_a_name_of_ours_is_denied() {
    let policies = [policy("data", json!({}))];
    for (list, what) in [("containers", "container"), ("initContainers", "container")] {
        let mut clash = pod(&[]);
        clash["spec"][list] = json!([{"name": "sidecar", "image": "mine"}]);
        let message = denial(&clash, &policies, NATIVE);
        assert!(message.contains(what) && message.contains("rename"), "{message}");
    }
    for volume in ["sidecar-config", "sidecar-token", "sidecar-state"] {
        let mut clash = pod(&[]);
        clash["spec"]["volumes"] = json!([{"name": volume, "emptyDir": {}}]);
        let message = denial(&clash, &policies, NATIVE);
        assert!(message.contains(volume) && message.contains("rename"), "{message}");
    }
}

#[test]
fn a_port_that_a_container_uses_is_denied_to_the_sidecar() {
    let listeners = json!({"http": [
        {"name": "minio", "port": 9000, "sites": []},
        {"name": "open", "address": "0.0.0.0", "port": 9001, "sites": []},
        {"name": "six", "address": "::1", "port": 9002, "sites": []},
    ]});
    let policies = [policy("data", listeners)];
    let with_port = |port: Value| {
        let mut pod = pod(&[]);
        pod["spec"]["containers"][0]["ports"] = json!([port]);
        pod
    };
    for (port, names) in [(9000, "listener minio"), (9001, "listener open"), (15470, "/metrics")] {
        let message = denial(&with_port(json!({"containerPort": port})), &policies, NATIVE);
        assert!(message.contains(names) && message.contains("\"app\""), "{message}");
    }
    for free in [json!({"containerPort": 8080}), json!({"containerPort": 9000, "protocol": "UDP"})] {
        assert!(
            matches!(decide(&with_port(free), &policies, NATIVE), Decision::Inject { warnings, .. } if warnings.is_empty())
        );
    }
    let doubtful = decide(&with_port(json!({"containerPort": 9002})), &policies, NATIVE);
    assert!(matches!(doubtful, Decision::Inject { warnings, .. } if warnings[0].contains("9002")));
}

#[test]
fn an_init_container_shares_its_ports_only_with_a_native_sidecar() {
    let policies = [policy("data", json!({"http": [{"name": "minio", "port": 9000, "sites": []}]}))];
    let mut pod = pod(&[]);
    pod["spec"]["initContainers"] = json!([{"name": "migrate", "ports": [{"containerPort": 9000}]}]);
    assert!(denial(&pod, &policies, NATIVE).contains("\"migrate\""));
    assert!(matches!(decide(&pod, &policies, ORDINARY), Decision::Inject { .. }));
}

#[test]
fn pods_that_cannot_hold_the_sidecar_are_denied() {
    let policies = [policy("data", json!({}))];
    for (field, value, names) in
        [("hostNetwork", json!(true), "hostNetwork"), ("os", json!({"name": "windows"}), "Windows")]
    {
        let mut pod = pod(&[]);
        pod["spec"][field] = value;
        assert!(denial(&pod, &policies, NATIVE).contains(names));
    }
    let mut bare = pod(&[]);
    bare["spec"] = Value::Null;
    assert!(denial(&bare, &policies, NATIVE).contains("spec"));
}

#[test]
fn a_volume_that_another_webhook_dropped_is_added_again() {
    let policies = [policy("data", json!({}))];
    let mut torn = injected(&pod(&[]), &policies, NATIVE);
    torn["spec"]["volumes"].as_array_mut().unwrap().retain(|volume| volume["name"] != "sidecar-token");
    torn["spec"]["containers"].as_array_mut().unwrap().push(json!({"name": "mesh"}));
    match decide(&torn, &policies, NATIVE) {
        Decision::Inject { patch, generation, .. } => {
            assert_eq!((patch.len(), generation), (1, 3));
            assert_eq!(patch[0].value["name"], "sidecar-token");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_that_another_webhook_dropped_is_injected_again() {
    let policies = [policy("data", json!({}))];
    let whole = injected(&pod(&[]), &policies, NATIVE);
    let mut torn = whole.clone();
    torn["spec"]["initContainers"] = json!([]);
    let Decision::Inject { patch, .. } = decide(&torn, &policies, NATIVE) else { panic!("not injected") };
    assert_eq!(patched(&torn, &patch), whole);
}

#[test]
fn a_sidecar_without_its_configuration_is_denied() {
    let policies = [policy("data", json!({}))];
    let mut broken = injected(&pod(&[]), &policies, NATIVE);
    broken["spec"]["initContainers"][0]["volumeMounts"] = json!([]);
    assert!(denial(&broken, &policies, NATIVE).contains("sidecar-config"));
}

#[test]
fn an_injected_pod_whose_policy_is_gone_is_denied() {
    let policies = [policy("data", json!({}))];
    let injected = injected(&pod(&[]), &policies, NATIVE);
    let others = [policy("other", json!({}))];
    let message = denial(&injected, &others, NATIVE);
    for part in ["sidecar.io/injected-policy", "\"data\"", "sidecar.io/injected-*", "container sidecar"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(!message.contains("sidecar.io/policy"), "{message}");
}

#[test]
fn an_injected_pod_with_the_configuration_of_another_policy_is_denied() {
    let policies = [policy("data", json!({})), policy("other", json!({}))];
    let recorded = injected(&pod(&[("sidecar.io/policy", "data")]), &policies, NATIVE);
    let mut other = recorded.clone();
    other["metadata"]["annotations"]["sidecar.io/injected-policy"] = json!("other");
    // With the container, and without it.
    let mut torn = other.clone();
    torn["spec"]["initContainers"] = json!([]);
    torn["metadata"]["annotations"]["sidecar.io/policy"] = json!("other");
    for pod in [other, torn] {
        let message = denial(&pod, &policies, NATIVE);
        assert!(message.contains("sidecar-config") && message.contains("sidecar-other"), "{message}");
    }
    assert!(matches!(decide(&recorded, &policies, NATIVE), Decision::Inject { .. }));
}

#[test]
fn rights_follow_a_service_account_that_changed_after_the_injection() {
    let policies = [policy("data", json!({}))];
    let mut moved = injected(&pod(&[]), &policies, NATIVE);
    moved["spec"]["serviceAccountName"] = json!("runner");
    let Decision::Inject { patch, .. } = decide(&moved, &policies, NATIVE) else { panic!("not injected") };
    let moved = patched(&moved, &patch);
    assert_eq!(moved["metadata"]["annotations"]["sidecar.io/service-account"], "runner");
    assert!(matches!(decide(&moved, &policies, NATIVE), Decision::Inject { patch, .. } if patch.is_empty()));
}
