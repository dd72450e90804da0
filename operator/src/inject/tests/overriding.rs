//! What policy, annotations and platform make of the container.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{super::shape, NATIVE, ORDINARY, decide, denial, injected, pod, policy, settings};
use crate::inject::{Decision, Platform};

fn container(annotations: &[(&str, &str)], spec: Value, platform: Platform) -> Value {
    let pod = injected(&pod(annotations), &[policy("data", spec)], platform);
    let lists = ["initContainers", "containers"]
        .map(|list| pod["spec"][list].as_array().cloned().unwrap_or_default());
    lists.concat().into_iter().find(|container| container["name"] == "sidecar").unwrap()
}

fn argument(container: &Value, flag: &str) -> Option<String> {
    let arguments = container["args"].as_array().unwrap();
    let index = arguments.iter().position(|argument| argument == flag)?;
    arguments[index + 1].as_str().map(str::to_owned)
}

#[test]
fn annotations_override_the_policy_and_the_policy_its_defaults() {
    let spec = json!({"injection": {
        "image": "own:2", "logLevel": "warn",
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "1500m", "memory": "256Mi"}},
    }});
    let plain = container(&[], spec.clone(), NATIVE);
    assert_eq!(plain["image"], "own:2");
    assert_eq!(
        plain["resources"],
        json!({"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"cpu": "1500m", "memory": "256Mi"}})
    );
    assert_eq!(argument(&plain, "--log-level").unwrap(), "warn");
    assert_eq!(argument(&plain, "--threads").unwrap(), "2");

    let annotations = [
        ("sidecar.io/log-level", "trace"),
        ("sidecar.io/cpu-request", "2"),
        ("sidecar.io/cpu-limit", "3.5"),
        ("sidecar.io/memory-request", "64Mi"),
        ("sidecar.io/memory-limit", "64Mi"),
        ("sidecar.io/mode", "Container"),
    ];
    let own = container(&annotations, spec, NATIVE);
    assert_eq!(
        own["resources"],
        json!({"requests": {"cpu": "2", "memory": "64Mi"}, "limits": {"cpu": "3.5", "memory": "64Mi"}})
    );
    assert_eq!(argument(&own, "--log-level").unwrap(), "trace");
    assert_eq!(argument(&own, "--threads").unwrap(), "4");
    assert_eq!(argument(&own, "--mode").unwrap(), "container");
}

#[test]
fn without_a_cpu_limit_the_sidecar_chooses_its_threads() {
    let plain = container(&[], json!({}), NATIVE);
    assert_eq!(argument(&plain, "--threads"), None);
    assert_eq!(plain["resources"]["limits"], json!({"memory": "128Mi"}));
    let huge = container(&[("sidecar.io/cpu-limit", "1000")], json!({}), NATIVE);
    assert_eq!(argument(&huge, "--threads").unwrap(), "64");
}

#[test]
fn a_default_yields_to_what_was_written() {
    let raised = container(&[("sidecar.io/memory-request", "1Gi")], json!({}), NATIVE);
    assert_eq!(raised["resources"]["limits"]["memory"], "1Gi");
    let lowered =
        container(&[("sidecar.io/memory-limit", "16Mi"), ("sidecar.io/cpu-limit", "10m")], json!({}), NATIVE);
    assert_eq!(lowered["resources"]["requests"], json!({"cpu": "10m", "memory": "16Mi"}));
}

#[test]
fn an_invalid_override_is_denied_naming_annotation_value_and_remedy() {
    let limit = json!({"injection": {"resources": {"limits": {"memory": "64Mi"}}}});
    for (annotations, spec, parts) in [
        (vec![("sidecar.io/log-level", "loud")], json!({}), ["log-level", "\"loud\"", "error, warn, info"]),
        (vec![("sidecar.io/mode", "native")], json!({}), ["mode", "\"native\"", "Auto, Native or Container"]),
        (vec![("sidecar.io/cpu-request", "half")], json!({}), ["cpu-request", "\"half\"", "50m"]),
        (vec![("sidecar.io/cpu-limit", "0")], json!({}), ["cpu-limit", "(0)", "at least 1m"]),
        (vec![("sidecar.io/memory-limit", "128m")], json!({}), ["memory-limit", "(128m)", "at least 16Mi"]),
        (
            vec![("sidecar.io/memory-request", "128Mi")],
            limit,
            ["memory-request", "policy data (64Mi)", "raise the limit"],
        ),
        (
            vec![("sidecar.io/cpu-request", "2"), ("sidecar.io/cpu-limit", "1")],
            json!({}),
            ["cpu-request (2)", "cpu-limit (1)", "lower the request"],
        ),
    ] {
        let message = denial(&pod(&annotations), &[policy("data", spec)], NATIVE);
        assert!(parts.iter().all(|part| message.contains(part)), "{message}");
    }
    let long = "9".repeat(100_000);
    assert!(
        denial(&pod(&[("sidecar.io/cpu-limit", &long)]), &[policy("data", json!({}))], NATIVE).len() < 300
    );
}

#[test]
fn a_misspelt_annotation_is_denied_with_the_nearest_known_one() {
    for (key, remedy) in [
        ("sidecar.io/polcy", "write sidecar.io/policy"),
        ("sidecar.io/loglevel", "write sidecar.io/log-level"),
        ("sidecar.io/cpu_limit", "write sidecar.io/cpu-limit"),
        ("sidecar.io/export-to", "belongs on a Namespace"),
    ] {
        let message = denial(&pod(&[(key, "x")]), &[policy("data", json!({}))], NATIVE);
        assert!(message.contains(key) && message.contains(remedy), "{message}");
    }
    let neighbours = [("sidecar.istio.io/inject", "false"), ("sidecar.iot/x", "y"), ("sidecar.io", "y")];
    assert!(matches!(
        decide(&pod(&neighbours), &[policy("data", json!({}))], NATIVE),
        Decision::Inject { .. }
    ));
}

#[test]
fn native_where_the_cluster_can_and_an_ordinary_container_elsewhere() {
    for (mode, platform, native) in [
        ("Auto", NATIVE, true),
        ("Auto", ORDINARY, false),
        ("Native", NATIVE, true),
        ("Container", NATIVE, false),
        ("Container", ORDINARY, false),
    ] {
        let pod = injected(&pod(&[]), &[policy("data", json!({"injection": {"mode": mode}}))], platform);
        let list = if native { "initContainers" } else { "containers" };
        assert_eq!(pod["spec"][list][0]["name"], "sidecar", "{mode}");
        assert_eq!(pod["spec"][list][0]["restartPolicy"] == "Always", native, "{mode}");
    }
    let asked = [policy("data", json!({"injection": {"mode": "Native"}}))];
    assert!(denial(&pod(&[]), &asked, ORDINARY).contains("spec.injection.mode of policy data"));
    let annotated = pod(&[("sidecar.io/mode", "Native")]);
    assert!(
        denial(&annotated, &[policy("data", json!({}))], ORDINARY).contains("annotation sidecar.io/mode")
    );
}

#[test]
fn a_native_sidecar_gets_word_before_the_application_ends_whatever_its_listeners_are() {
    let told = |address: &str, platform| {
        let site = json!({"name": "only", "backends": [{"addresses": ["127.0.0.1:8081"]}]});
        let listener = json!({"name": "a", "address": address, "port": 8080, "sites": [site]});
        let container = container(&[], json!({"http": [listener]}), platform);
        container["lifecycle"]["preStop"]["exec"]["command"].clone()
    };
    let hook = json!(["/sidecar", "leave", "--state-dir", crds::names::volumes::STATE_PATH]);
    assert_eq!(told("0.0.0.0", NATIVE), hook);
    // A listener for other pods may come later, and makes no pod outdated.
    assert_eq!(told("127.0.0.1", NATIVE), hook);
    assert_eq!(told("0.0.0.0", ORDINARY), Value::Null);
}

#[test]
fn a_job_with_an_ordinary_container_warns_that_it_will_not_finish() {
    let policies = [policy("data", json!({}))];
    let mut job = pod(&[]);
    job["spec"]["restartPolicy"] = json!("Never");
    match decide(&job, &policies, ORDINARY) {
        Decision::Inject { warnings, .. } => {
            assert!(warnings[0].contains("will not finish") && warnings[0].len() <= 120)
        }
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(decide(&job, &policies, NATIVE), Decision::Inject { warnings, .. } if warnings.is_empty())
    );
}

#[test]
fn the_hash_is_that_of_the_injected_pod_and_changes_with_its_shape_alone() {
    let hash = |spec: Value, annotations: &[(&str, &str)], platform| {
        let annotations: BTreeMap<String, String> =
            annotations.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        shape::hash(&policy("data", spec), &annotations, platform, &settings()).unwrap()
    };
    let base = hash(json!({}), &[], NATIVE);
    let pod = injected(&pod(&[]), &[policy("data", json!({}))], NATIVE);
    assert_eq!(pod["metadata"]["annotations"]["sidecar.io/shape-hash"], json!(base));
    assert_eq!(base.len(), 16);

    let listener = json!({"http": [{"name": "a", "port": 9000, "sites": []}]});
    assert_eq!(hash(listener, &[], NATIVE), base, "an edit of configuration makes no pod outdated");
    assert_eq!(hash(json!({"injection": {"drainTimeout": "5s"}}), &[], NATIVE), base);
    assert_eq!(hash(json!({"priority": 5}), &[("other", "x")], NATIVE), base);
    for changed in [
        hash(json!({"injection": {"image": "other:1"}}), &[], NATIVE),
        hash(json!({"injection": {"logLevel": "debug"}}), &[], NATIVE),
        hash(json!({"injection": {"mode": "Container"}}), &[], NATIVE),
        hash(json!({}), &[], ORDINARY),
        hash(json!({}), &[("sidecar.io/memory-limit", "64Mi")], NATIVE),
    ] {
        assert_ne!(changed, base);
    }
}
