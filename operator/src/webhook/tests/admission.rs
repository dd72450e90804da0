//! What a review is answered with.

use serde_json::json;

use super::{Live, Policies, Webhook, opted_in, patch, policy, review};

#[tokio::test]
async fn an_opted_in_pod_is_patched_with_additions_and_the_decision_is_audited() {
    let webhook = Webhook::with_policy();
    let response = webhook.review(&opted_in()).await;
    assert_eq!(response["allowed"], true);
    assert_eq!(response["uid"], "705ab4f5-6393-11e8-b7cc-42010a800002");
    assert_eq!(response["patchType"], "JSONPatch");
    let operations = patch(&response);
    assert!(operations.iter().all(|operation| operation["op"] == "add"), "{operations:?}");
    assert!(
        operations
            .iter()
            .any(|operation| operation["path"] == "/metadata/annotations/sidecar.io~1shape-hash")
    );
    let audit =
        json!({"decision": "injected by policy data at generation 3", "policy": "data", "generation": "3"});
    assert_eq!(response["auditAnnotations"], audit);
    assert_eq!(webhook.live_reads(), 0);
    assert!(
        webhook.metrics().contains("sidecar_operator_webhook_admissions_total{outcome=\"Injected\"} 1"),
        "{}",
        webhook.metrics()
    );
}

#[tokio::test]
async fn a_pod_without_the_annotation_is_allowed_unchanged() {
    let webhook = Webhook::with_policy();
    for annotations in [json!(null), json!({}), json!({"sidecar.io/inject": "false"})] {
        let response = webhook.review(&review(annotations)).await;
        assert_eq!(response["allowed"], true);
        assert_eq!(response.get("patch"), None);
        assert!(response["auditAnnotations"]["decision"].as_str().unwrap().starts_with("skipped: "));
    }
}

#[tokio::test]
async fn only_the_creation_of_pods_is_decided_about() {
    let webhook = Webhook::default_denying();
    for (field, value) in [
        ("operation", json!("UPDATE")),
        ("operation", json!("DELETE")),
        ("operation", json!("CONNECT")),
        ("subResource", json!("binding")),
        ("kind", json!({"group": "apps", "version": "v1", "kind": "Deployment"})),
    ] {
        let mut review = review(json!({"sidecar.io/inject": "yes"}));
        review["request"][field] = value;
        assert_eq!(webhook.review(&review).await["allowed"], true, "{field}");
    }
    let mut deletion = review(json!({}));
    deletion["request"]["operation"] = json!("DELETE");
    deletion["request"]["object"] = json!(null);
    assert_eq!(webhook.review(&deletion).await["allowed"], true);
}

#[tokio::test]
async fn a_denial_names_the_pod_and_the_remedy() {
    let response = Webhook::with_policy().review(&review(json!({"sidecar.io/inject": "yes"}))).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 403);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(
        message.starts_with("pod web-7d9f-* in namespace analytics: annotation sidecar.io/inject is \"yes\""),
        "{message}"
    );
    assert!(response["auditAnnotations"]["decision"].as_str().unwrap().starts_with("denied: "));
}

#[tokio::test]
async fn a_policy_that_cannot_be_read_is_named_where_no_other_selects_the_pod() {
    let policies = || Policies {
        unreadable: vec!["newer".to_owned()],
        live: Live::Answers(Vec::new()),
        ..Policies::default()
    };
    let response = Webhook::new(policies()).review(&opted_in()).await;
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("SidecarPolicy newer cannot be read by this release"), "{message}");
    assert!(message.contains("condition Accepted"), "{message}");

    let cached = vec![policy("data", json!({}))];
    let response = Webhook::new(Policies { cached, ..policies() }).review(&opted_in()).await;
    assert_eq!(response["allowed"], true, "the others serve");
}

#[tokio::test]
async fn a_policy_that_was_applied_a_moment_ago_is_found_by_a_live_read() {
    let live = Live::Answers(vec![policy("fresh", json!({}))]);
    let webhook = Webhook::new(Policies { live, ..Policies::default() });
    let response = webhook.review(&opted_in()).await;
    assert_eq!(response["auditAnnotations"]["policy"], "fresh");
    assert_eq!(webhook.live_reads(), 1);
}

#[tokio::test]
async fn without_a_policy_even_live_the_pod_is_denied() {
    let live = Live::Answers(vec![policy("ml", json!({"podSelector": {"matchLabels": {"team": "ml"}}}))]);
    let webhook = Webhook::new(Policies { live, ..Policies::default() });
    let response = webhook.review(&opted_in()).await;
    assert_eq!(response["allowed"], false);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("ml: it wants label team=ml and the pod has no team"), "{message}");
}

#[tokio::test]
async fn when_policies_cannot_be_read_the_pod_is_refused_and_may_come_again() {
    let webhook = Webhook::default_denying();
    let response = webhook.review(&opted_in()).await;
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 503);
    let message = response["status"]["message"].as_str().unwrap();
    assert!(message.contains("could not be read") && message.contains("create the pod again"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_live_read_that_hangs_is_given_up_before_the_api_server_gives_up() {
    let webhook = Webhook::new(Policies { live: Live::Hangs, ..Policies::default() });
    let started = tokio::time::Instant::now();
    let response = webhook.review(&opted_in()).await;
    assert_eq!(response["status"]["code"], 503);
    assert!(started.elapsed() < std::time::Duration::from_secs(5));
}

#[tokio::test]
async fn an_exclusion_that_the_user_may_not_expect_is_a_warning() {
    let mut system = opted_in();
    system["request"]["namespace"] = json!("kube-system");
    let response = Webhook::with_policy().review(&system).await;
    assert_eq!(response["allowed"], true);
    let warning = response["warnings"][0].as_str().unwrap();
    assert!(warning.contains("has no effect") && warning.len() <= 120, "{warning}");
}

impl Webhook {
    /// Without any policy, and with an API server that does not answer.
    fn default_denying() -> Self {
        Self::new(Policies::default())
    }
}
