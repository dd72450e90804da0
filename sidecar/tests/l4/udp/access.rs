//! One line for each session, when it has ended.

use serde_json::{Value, json};

use super::support::{Backend, Udp};
use crate::support::{in_time, until};

#[tokio::test]
async fn a_session_that_fell_silent_is_told_with_what_it_was() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::with_config(json!({"sessionTimeout": "100ms", "accessLog": {}}), &[backend.address]);
    let client = sidecar.client().await;
    assert_eq!(client.ask("four").await, "a four");
    let line = &sidecar.output.objects(1).await[0];
    for (field, expected) in [
        ("listener", json!("test")),
        ("client", json!(client.0.local_addr().unwrap().to_string())),
        ("host", Value::Null),
        ("receivedBytes", json!(4)),
        ("sentBytes", json!(6)),
        ("connectSeconds", Value::Null),
        ("site", json!("all")),
        ("backend", json!(backend.address.to_string())),
        ("tries", json!(1)),
        ("cause", Value::Null),
        ("kind", json!("Session")),
    ] {
        assert_eq!(line[field], expected, "{field}");
    }
    assert!(line["durationSeconds"].as_f64().unwrap() >= 0.1, "{line}");
}

#[tokio::test]
async fn a_session_that_had_to_go_says_why() {
    let backend = Backend::named("a").await;
    let sidecar =
        Udp::with_config(json!({"maxSessions": 1, "accessLog": {"errorsOnly": true}}), &[backend.address]);
    let (first, second) = (sidecar.client().await, sidecar.client().await);
    first.ask("one").await;
    second.ask("two").await;
    until("room", || sidecar.listener.sessions() == 1).await;
    let line = &sidecar.output.objects(1).await[0];
    assert_eq!(line["cause"], "Evicted");
    assert_eq!(line["client"], json!(first.0.local_addr().unwrap().to_string()));

    sidecar.set(&[]);
    // The thread has the news a moment later.
    in_time("the end of the session", async {
        while sidecar.listener.sessions() > 0 {
            second.send("three").await;
            tokio::task::yield_now().await;
        }
    })
    .await;
    let line = &sidecar.output.objects(2).await[1];
    assert_eq!(
        (&line["cause"], &line["backend"]),
        (&json!("NoBackend"), &json!(backend.address.to_string()))
    );
}

#[tokio::test]
async fn a_session_that_changed_its_backend_is_one_line() {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let sidecar = Udp::with_config(json!({"sessionTimeout": "300ms", "accessLog": {}}), &[one.address]);
    let client = sidecar.client().await;
    client.ask("1").await;
    sidecar.set(&[two.address]);
    in_time("the other", async { while client.insist("1").await.0 != "two 1" {} }).await;
    let line = &sidecar.output.objects(1).await[0];
    assert_eq!(line["backend"], json!(two.address.to_string()));
    assert!(line["tries"] == 2 && line["receivedBytes"].as_u64().unwrap() >= 2, "{line}");
}

#[tokio::test]
async fn what_is_left_when_the_listener_closes_is_cut_off() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::with_config(json!({"accessLog": {}}), &[backend.address]);
    let client = sidecar.client().await;
    client.ask("one").await;
    let output = sidecar.output.clone();
    let (listener, workers) = sidecar.into_parts();
    in_time("the drain", listener.drain(std::time::Duration::ZERO)).await;
    in_time("the end of the threads", workers.shutdown(std::time::Duration::ZERO)).await;
    assert_eq!(output.objects(1).await[0]["cause"], "CutOff");
}
