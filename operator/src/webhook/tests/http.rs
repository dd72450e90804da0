//! Whatever is sent, there is an answer, bounded in time and memory.

use axum::{
    body::{Body, Bytes},
    http::StatusCode,
};
use futures::stream;
use proptest::prelude::*;
use serde_json::json;

use super::{Webhook, opted_in};

#[tokio::test]
async fn a_body_that_is_no_review_is_a_bad_request_with_the_reason() {
    let webhook = Webhook::with_policy();
    for (body, reason) in [
        ("", "not an AdmissionReview"),
        ("{", "not an AdmissionReview"),
        ("[]", "not an AdmissionReview"),
        ("{}", "answers AdmissionReview of admission.k8s.io/v1"),
        (
            r#"{"apiVersion":"admission.k8s.io/v1beta1","kind":"AdmissionReview"}"#,
            "\"admission.k8s.io/v1beta1\"",
        ),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}"#, "no request"),
        (r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{}}"#, "uid"),
    ] {
        let (status, answer) = webhook.post("application/json", body).await;
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
        assert!(answer.contains(reason), "{answer}");
    }
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(webhook.post("application/json", nested).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn another_content_type_is_refused() {
    let webhook = Webhook::with_policy();
    for kind in ["", "text/plain", "application/jsonx", "application/yaml"] {
        assert_eq!(webhook.post(kind, "{}").await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    let review = opted_in().to_string();
    for kind in ["application/json", "Application/JSON; charset=utf-8"] {
        assert_eq!(webhook.post(kind, review.clone()).await.0, StatusCode::OK, "{kind}");
    }
}

#[tokio::test]
async fn more_than_8_mib_is_refused_and_just_below_is_read() {
    let webhook = Webhook::with_policy();
    let mut large = opted_in();
    large["request"]["object"]["metadata"]["annotations"]["padding"] = json!("x".repeat((8 << 20) - 4096));
    assert_eq!(webhook.post("application/json", large.to_string()).await.0, StatusCode::OK);
    let (status, message) = webhook.post("application/json", "x".repeat((8 << 20) + 1)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    assert!(String::from_utf8(message).unwrap().contains("8 MiB"));

    let endless = stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 65_536])));
    let (status, _) = webhook.post("application/json", Body::from_stream(endless)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "a body of unknown length is bounded too");
    assert!(
        webhook.metrics().contains("sidecar_operator_webhook_rejections_total{reason=\"TooLarge\"} 2"),
        "{}",
        webhook.metrics()
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_never_sends_its_body_is_let_go() {
    let silent = stream::pending::<Result<Bytes, std::io::Error>>();
    let (status, _) = Webhook::with_policy().post("application/json", Body::from_stream(silent)).await;
    assert_eq!(status, StatusCode::REQUEST_TIMEOUT);
}

#[tokio::test(start_paused = true)]
async fn a_crowd_of_slow_callers_is_turned_away_instead_of_filling_the_memory() {
    let webhook = Webhook::with_policy();
    let slow = || Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
    let answers = futures::future::join_all((0..9).map(|_| webhook.post("application/json", slow()))).await;
    let busy = answers.iter().filter(|(status, _)| *status == StatusCode::SERVICE_UNAVAILABLE).count();
    assert!((1..=5).contains(&busy), "{busy}");
    assert_eq!(webhook.post("application/json", opted_in().to_string()).await.0, StatusCode::OK);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_are_without_an_answer(
        noise in prop::collection::vec(any::<u8>(), 0..256),
        cut in 0..2_000usize,
        flips in prop::collection::vec((0..2_000usize, any::<u8>()), 0..4),
    ) {
        let mut bytes = opted_in().to_string().into_bytes();
        for (at, byte) in flips {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len().saturating_sub(cut / 10).max(1));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for body in [noise, bytes] {
            let (status, answer) = runtime.block_on(Webhook::with_policy().post("application/json", body));
            prop_assert!(status == StatusCode::OK || status == StatusCode::BAD_REQUEST, "{status}");
            prop_assert!(!answer.is_empty());
        }
    }
}
