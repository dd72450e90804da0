//! With a live backend left, no new connection fails, and none waits for long.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Backend, Sidecar, black_hole, in_time, refusing, until};

/// Backends that are never found to be down, so that only connecting shows it.
fn unchecked() -> serde_json::Value {
    json!({"balance": "RoundRobin", "health": {"interval": "1h", "unhealthyThreshold": 100}})
}

#[tokio::test]
async fn no_connection_fails_while_one_of_three_backends_listens() {
    let backend = Backend::start(b'a').await;
    let backends = [refusing().await, backend.address, refusing().await];
    for fields in [unchecked(), json!({})] {
        let sidecar = Sidecar::start(fields, &backends).await;
        for _ in 0..50 {
            assert_eq!(sidecar.greeted().await.1, b'a');
        }
        assert!((sidecar.metric("sidecar_tcp_failed")).abs() < 0.5);
    }
}

#[tokio::test]
async fn a_black_hole_costs_a_moment_and_not_the_time_out() {
    let (hole, _full) = black_hole().await;
    let backend = Backend::start(b'a').await;
    let mut fields = unchecked();
    fields["timeouts"] = json!({"connect": "15s"});
    let sidecar = Sidecar::start(fields, &[hole, backend.address]).await;
    let start = Instant::now();
    for _ in 0..6 {
        assert_eq!(sidecar.greeted().await.1, b'a');
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_client_that_comes_while_the_only_backend_restarts_is_served() {
    let address = refusing().await;
    let sidecar = Sidecar::start(json!({}), &[address]).await;
    let mut client = sidecar.connect().await;
    let back = async {
        // The first check may have told before the client asked.
        let known = ["sidecar_tcp_connect_failures", "sidecar_tcp_backend_down_seconds"];
        let nobody = || known.iter().any(|metric| sidecar.metric(metric) > 0.0);
        until("nobody is there", nobody).await;
        until("the client has come", || sidecar.metric("sidecar_tcp_connections") > 0.5).await;
        Backend::on(TcpListener::bind(address).await.unwrap(), b'a')
    };
    let (_backend, name) = tokio::join!(back, in_time("a greeting", client.read_u8()));
    assert_eq!(name.unwrap(), b'a');
}

#[tokio::test]
async fn a_client_without_any_backend_is_told_so_by_a_break() {
    let sidecar = Sidecar::start(json!({}), &[]).await;
    let mut client = sidecar.connect().await;
    assert!(in_time("the end", client.read_u8()).await.is_err());
    let failed = "sidecar_tcp_failed_total{listener=\"db\",cause=\"NoBackend\"";
    crate::support::until("it is counted", || sidecar.metric(failed) > 0.5).await;
}

#[tokio::test]
async fn a_backend_that_leaves_before_a_word_costs_no_connection() {
    let backend = Backend::start(b'a').await;
    let leaving = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = leaving.local_addr().unwrap();
    let leaves = tokio::spawn(async move {
        while let Ok((stream, _)) = leaving.accept().await {
            drop(stream);
        }
    });
    let mut fields = unchecked();
    // It would be taken out for a while, and no longer be asked.
    fields["outlierDetection"] = json!({"consecutiveErrors": 0});
    let sidecar = Sidecar::start(fields, &[address, backend.address]).await;
    for _ in 0..20 {
        assert_eq!(sidecar.greeted().await.1, b'a');
    }
    let left = format!("sidecar_tcp_backend_connected_total{{listener=\"db\",backend=\"{address}\"");
    assert!(sidecar.metric(&left) > 5.0, "it was asked");
    assert!(sidecar.metric("sidecar_tcp_failed").abs() < 0.5);
    leaves.abort();
}

#[tokio::test]
async fn what_a_client_has_said_is_never_said_twice() {
    let other = Backend::start(b'a').await;
    let hearing = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(json!({}), &[hearing.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    client.write_all(b"x").await.unwrap();
    let mut server = loop {
        let (mut stream, _) = in_time("a connection", hearing.accept()).await.unwrap();
        if in_time("a byte", stream.read(&mut [0])).await.unwrap_or(0) > 0 {
            break stream;
        }
    };
    sidecar.set(&[other.address]);
    server.shutdown().await.unwrap();
    drop(server);
    assert_eq!(in_time("the end", client.read_to_end(&mut Vec::new())).await.unwrap(), 0);
}
