//! A client's request for TLS that its server answers, because the sidecar speaks none.

use std::net::SocketAddr;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::server::{Files, Postgres, SSL_REQUEST, START, ask, begin, echoes};
use crate::support::{Sidecar, in_time, until};

/// So many that each server is asked, in turn.
const CLIENTS: usize = 4;

/// A server that answers the request so, hears `then` bytes more, and leaves.
async fn leaving(answer: &'static [u8], then: usize) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            connections.spawn(async move {
                stream.read_exact(&mut SSL_REQUEST.clone()).await?;
                stream.write_all(answer).await?;
                stream.read_exact(&mut vec![0; then]).await
            });
        }
    });
    (address, AbortOnDropHandle::new(task))
}

async fn sidecar(backends: &[SocketAddr]) -> Sidecar {
    // What leaves would be taken out for a while.
    let fields = json!({"protocol": "Postgres", "balance": "RoundRobin", "outlierDetection": {"consecutiveErrors": 0}});
    Sidecar::start(fields, backends).await
}

#[tokio::test]
async fn a_client_that_is_told_no_goes_on_in_plain_text_with_the_same_server() {
    let server = Postgres::start(b'a', None).await;
    let sidecar = sidecar(&[server.address]).await;
    let mut stream = sidecar.connect().await;
    assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
    begin(&mut stream).await.unwrap();
    assert!(echoes(&mut stream, b"select 1").await);
    let connected = sidecar.metric("sidecar_tcp_backend_connected_total");
    assert!((connected - 1.0).abs() < 0.5, "{connected} connections");
    // What both say before they go on is counted as well.
    let bytes = (SSL_REQUEST.len() + START.len() + 8) as f64;
    until("all is counted", || (sidecar.metric("sidecar_tcp_sent_bytes_total") - bytes).abs() < 0.5).await;
}

#[tokio::test]
async fn a_client_that_asks_twice_is_told_the_same_and_served() {
    let server = Postgres::start(b'a', None).await;
    let sidecar = sidecar(&[server.address]).await;
    let mut stream = sidecar.connect().await;
    for _ in 0..2 {
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
    }
    begin(&mut stream).await.unwrap();
}

#[tokio::test]
async fn a_server_that_leaves_in_place_of_an_answer_costs_no_client() {
    let (server, (address, _leaving)) = (Postgres::start(b'a', None).await, leaving(b"", 0).await);
    let sidecar = sidecar(&[address, server.address]).await;
    for _ in 0..CLIENTS {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
        begin(&mut stream).await.unwrap();
    }
    assert!(sidecar.metric("sidecar_tcp_connect_failures_total") > 0.5, "it was asked");
}

#[tokio::test]
async fn a_server_that_leaves_after_its_no_costs_no_client() {
    let server = Postgres::start(b'a', None).await;
    let (address, _leaving) = leaving(b"N", START.len()).await;
    let sidecar = sidecar(&[address, server.address]).await;
    for _ in 0..CLIENTS {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
        assert_eq!(begin(&mut stream).await.unwrap()[4], b'a');
    }
    let left = format!("sidecar_tcp_backend_connected_total{{listener=\"db\",backend=\"{address}\"");
    assert!(sidecar.metric(&left) > 0.5, "it was asked");
}

#[tokio::test]
async fn a_server_that_breaks_off_after_its_no_costs_no_client() {
    let server = Postgres::start(b'a', None).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (told, mut broken) = tokio::sync::mpsc::unbounded_channel();
    let breaking = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if stream.read_exact(&mut SSL_REQUEST.clone()).await.is_ok() {
                stream.write_all(b"N").await.unwrap();
                socket2::SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
                drop(stream);
                told.send(()).unwrap();
            }
        }
    });
    let sidecar = sidecar(&[address, server.address]).await;
    let mut seen = 0;
    while seen < 2 {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
        // The client thinks until the server has gone, where it is that one.
        seen += usize::from(broken.try_recv().is_ok());
        assert_eq!(begin(&mut stream).await.unwrap()[4], b'a');
    }
    breaking.abort();
}

#[tokio::test]
async fn who_leaves_after_a_no_has_not_failed() {
    let server = Postgres::start(b'a', None).await;
    let sidecar = sidecar(&[server.address]).await;
    let mut stream = sidecar.connect().await;
    assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
    drop(stream);
    until("it has gone", || sidecar.metric("sidecar_tcp_connections") < 0.5).await;
    assert!(sidecar.metric("sidecar_tcp_failed_total").abs() < 0.5);
    // Both sides' bytes are counted all the same.
    assert!((sidecar.metric("sidecar_tcp_sent_bytes_total") - SSL_REQUEST.len() as f64).abs() < 0.5);
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_not_waited_for_alone() {
    let server = Postgres::start(b'a', None).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fields = json!({"protocol": "Postgres", "balance": "RoundRobin", "timeouts": {"connect": "10m"}});
    let sidecar = Sidecar::start(fields, &[silent.local_addr().unwrap(), server.address]).await;
    for _ in 0..2 {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
        begin(&mut stream).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_whose_only_server_does_not_answer_is_told_so_in_words() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let fields = json!({"protocol": "Postgres", "timeouts": {"connect": "100ms"}});
    let sidecar = Sidecar::start(fields, &[silent.local_addr().unwrap()]).await;
    let mut stream = sidecar.connect().await;
    assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'E');
}

#[tokio::test]
async fn a_client_that_leaves_after_a_no_makes_room_for_one_that_waits() {
    let server = Postgres::start(b'a', None).await;
    let limits = json!({"maxConnections": 1, "queueTimeout": "1m"});
    let fields = json!({"protocol": "Postgres", "backendLimits": limits});
    let sidecar = Sidecar::start(fields, &[server.address]).await;
    let (mut first, mut second) = (sidecar.connect().await, sidecar.connect().await);
    assert_eq!(ask(&mut first, SSL_REQUEST).await, b'N');
    second.write_all(START).await.unwrap();
    until("it waits", || sidecar.metric("sidecar_tcp_queued") > 0.5).await;
    drop(first);
    assert_eq!(in_time("a welcome", second.read_u8()).await.unwrap(), b'R');
}

#[tokio::test]
async fn what_a_server_answers_is_what_the_client_hears() {
    let (address, _leaving) = leaving(b"E\0\0\0\x05x", 0).await;
    let sidecar = sidecar(&[address]).await;
    let mut stream = sidecar.connect().await;
    stream.write_all(&SSL_REQUEST).await.unwrap();
    let mut heard = Vec::new();
    in_time("its words", stream.read_to_end(&mut heard)).await.unwrap();
    assert_eq!(heard, b"E\0\0\0\x05x");
    until("the words are counted", || {
        (sidecar.metric("sidecar_tcp_received_bytes_total") - heard.len() as f64).abs() < 0.5
    })
    .await;
}

#[tokio::test]
async fn tls_of_the_clients_own_goes_through_unopened() {
    let files = Files::new();
    let server = Postgres::start(b'a', Some(files.acceptor())).await;
    let sidecar = sidecar(&[server.address]).await;
    let mut stream = sidecar.connect().await;
    assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'S');
    let mut stream = files.secure(stream, &[]).await.unwrap();
    begin(&mut stream).await.unwrap();
    assert!(echoes(&mut stream, &vec![7; 2_000_000]).await);
}
