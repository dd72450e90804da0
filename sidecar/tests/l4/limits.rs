//! The most connections of a backend, the queue in front of it, and what becomes of connections whose backend fails.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Backend, Sidecar, in_time, until};

const QUEUED: &str = "sidecar_tcp_queued";

fn limited(limits: Value) -> Value {
    json!({"backendLimits": limits})
}

#[tokio::test]
async fn no_backend_has_more_connections_than_it_may() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let limits = limited(json!({"maxConnections": 3, "maxQueued": 100}));
    let sidecar = Sidecar::start(limits, &[a.address, b.address]).await;
    until("the checks are over", || a.open() + b.open() == 0).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(sidecar.connect().await);
    }
    until("the others wait", || (sidecar.metric(QUEUED) - 14.0).abs() < 0.5).await;
    until("each has as many as it may", || (a.open(), b.open()) == (3, 3)).await;
}

#[tokio::test]
async fn who_waits_is_served_in_turn_when_a_connection_ends() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(limited(json!({"maxConnections": 1})), &[backend.address]).await;
    let (mut now, _) = sidecar.greeted().await;
    let mut waiting = Vec::new();
    for count in 1..=3 {
        waiting.push(sidecar.connect().await);
        until("it waits", || (sidecar.metric(QUEUED) - f64::from(count)).abs() < 0.5).await;
    }
    for mut next in waiting {
        drop(now);
        in_time("its turn", next.read_u8()).await.unwrap();
        now = next;
    }
    now.write_u8(1).await.unwrap();
    in_time("an echo", now.read_u8()).await.unwrap();
}

#[tokio::test]
async fn a_full_queue_and_a_long_wait_end_in_a_break() {
    let backend = Backend::start(b'a').await;
    let limits = json!({"maxConnections": 1, "maxQueued": 1, "queueTimeout": "300ms"});
    let sidecar = Sidecar::start(limited(limits), &[backend.address]).await;
    let (_busy, _) = sidecar.greeted().await;
    let mut waits = sidecar.connect().await;
    until("it waits", || sidecar.metric(QUEUED) > 0.5).await;
    let mut refused = sidecar.connect().await;
    assert!(in_time("a refusal", refused.read_u8()).await.is_err());
    assert!(in_time("the end of waiting", waits.read_u8()).await.is_err());
    for cause in ["QueueFull", "QueueTimeout"] {
        let series = format!("sidecar_tcp_failed_total{{listener=\"db\",cause=\"{cause}\"");
        until(cause, || sidecar.metric(&series) > 0.5).await;
    }
}

#[tokio::test]
async fn connections_of_a_backend_that_fails_its_checks_are_closed_if_that_is_wanted() {
    for (wanted, closes) in [("Close", true), ("Keep", false)] {
        let backend = Backend::start(b'a').await;
        // The check asks by HTTP at a port that will be gone.
        let checked = Backend::start(b'x').await;
        let fields = |port: u16| {
            json!({
                "onBackendDown": wanted,
                "health": {"port": port, "interval": "100ms", "timeout": "1s", "panic": false},
            })
        };
        let sidecar = Sidecar::start(fields(checked.address.port()), &[backend.address]).await;
        let (mut client, _) = sidecar.greeted().await;
        sidecar.update(fields(crate::support::refusing().await.port()));
        until("it is down", || sidecar.metric("sidecar_tcp_backend_down_seconds") > 0.0).await;
        if closes {
            assert!(in_time("the end", client.read_u8()).await.is_err());
        } else {
            tokio::time::timeout(Duration::from_millis(300), client.read_u8()).await.unwrap_err();
            client.write_u8(1).await.unwrap();
            in_time("an echo", client.read_u8()).await.unwrap();
        }
    }
}
