//! How long a request, and each part of it, may take. The limits are short here, and nothing else would end these requests
//! within the test's own deadline.

use serde_json::json;
use sidecar::net::tls::Store;
use tokio::io::AsyncReadExt;

use crate::support::{Backend, Sidecar, Site, h2::H2Client};

/// Takes requests and never answers.
async fn silent() -> Backend {
    Backend::start(|mut visit| async move { while visit.request().await.is_some() {} }).await
}

async fn with(timeouts: serde_json::Value, backends: &[&Backend]) -> Sidecar {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let fields = json!({"timeouts": timeouts, "balance": "RoundRobin"});
    let sidecar = Sidecar::with_config(fields, vec![Site::new("primary", &addresses)]);
    sidecar.ready().await;
    sidecar
}

#[tokio::test]
async fn a_get_goes_elsewhere_when_its_answer_does_not_begin_in_time() {
    let (silent, good) = (silent().await, Backend::named("good").await);
    let sidecar = with(json!({"firstByte": "100ms"}), &[&silent, &good]).await;
    for _ in 0..4 {
        assert_eq!(sidecar.get("/").await.text(), "good");
    }
    assert!(!silent.requests().is_empty());
}

#[tokio::test]
async fn a_changed_limit_counts_from_the_next_request_on_of_the_same_connection() {
    let (silent, good) = (silent().await, Backend::named("good").await);
    let mut sidecar = with(json!({"firstByte": "1h"}), &[&good]).await;
    let mut client = sidecar.client().await;
    assert_eq!(client.get("/").await.text(), "good");
    sidecar.reconfigure(|config| config.timeouts.first_byte = crds::units::Duration::from_millis(100));
    sidecar.sites[0].set(&[silent.address, good.address]);
    sidecar.ready().await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "good");
    }
    assert!(!silent.requests().is_empty());
}

#[tokio::test]
async fn a_request_that_cannot_go_elsewhere_waits_until_nothing_has_moved_for_the_idle_time() {
    let silent = silent().await;
    let sidecar = with(json!({"firstByte": "50ms", "idle": "200ms"}), &[&silent]).await;
    let response = sidecar.client().await.post("/", "body").await;
    assert_eq!(response.status(), 504);
    assert!(response.text().contains("no response within 200ms"), "{}", response.text());
}

#[tokio::test]
async fn an_answer_that_stands_still_for_the_idle_time_is_broken_visibly() {
    let backend = Backend::start(|mut visit| async move {
        while visit.request().await.is_some() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
        }
    })
    .await;
    let sidecar = with(json!({"idle": "200ms"}), &[&backend]).await;
    sidecar.client().await.receive_broken("/").await;
}

#[tokio::test]
async fn a_client_without_a_request_is_let_go_after_the_idle_time() {
    let backend = Backend::named("good").await;
    let sidecar = with(json!({"idle": "200ms"}), &[&backend]).await;
    let mut client = sidecar.client().await;
    client.get("/").await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_in_http2_without_a_request_is_let_go_after_the_idle_time() {
    let backend = Backend::named("good").await;
    let sidecar = with(json!({"idle": "200ms"}), &[&backend]).await;
    let client = H2Client::connect(sidecar.address()).await;
    assert_eq!(client.get("/").await.text(), "good");
    client.ended().await.unwrap();
}

#[tokio::test]
async fn the_total_time_ends_what_is_still_moving_and_its_retries() {
    let dripping = Backend::start(|mut visit| async move {
        while visit.request().await.is_some() {
            visit.send("HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Length: 1000000\r\n\r\n").await;
            let mut drop = tokio::time::interval(std::time::Duration::from_millis(5));
            for _ in 0..1_000_000 {
                drop.tick().await;
                visit.send("x").await;
            }
        }
    })
    .await;
    let sidecar = with(json!({"total": "300ms"}), &[&dripping]).await;
    sidecar.client().await.receive_broken("/").await;
    assert_eq!(dripping.requests().len(), 1, "nothing is gone on with when the time is over");
    assert_eq!(sidecar.metric("sidecar_http_backend_ejections_total").unwrap_or(0.0), 0.0);
}

#[tokio::test]
async fn the_total_time_is_all_that_tries_get_together() {
    let silent = [silent().await, silent().await, silent().await, silent().await];
    let backends: Vec<_> = silent.iter().collect();
    let sidecar = with(json!({"firstByte": "10m", "total": "200ms"}), &backends).await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 504);
    assert!(response.text().contains("no response within 200ms"), "{}", response.text());
    assert_eq!(silent.iter().map(|backend| backend.requests().len()).sum::<usize>(), 1);
}

#[tokio::test]
async fn a_connection_is_open_when_tls_is_and_given_up_when_that_is_not_in_time() {
    let deaf = Backend::start(|mut visit| async move {
        let _ = visit.reader.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let client = Store::default().client(&crds::config::BackendTls::default()).unwrap();
    let fields = json!({"timeouts": {"connect": "100ms"}, "health": {"interval": "1h", "timeout": "1h"}});
    let sidecar = Sidecar::with_config(fields, vec![Site::within(client, &[deaf.address])]);
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("cannot connect"), "{}", response.text());
}

#[tokio::test]
async fn connections_to_backends_are_kept_as_long_as_the_keep_alive_says() {
    for (keep_alive, connections) in [("1h", 1), ("0s", 3)] {
        let backend = Backend::named("good").await;
        let sidecar = with(json!({"keepAlive": keep_alive}), &[&backend]).await;
        let mut client = sidecar.client().await;
        for _ in 0..3 {
            assert_eq!(client.get("/").await.text(), "good");
        }
        assert_eq!(backend.connections(), connections, "{keep_alive}");
    }
}
