//! Requests to cancel a query.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::server::{
    CANCEL as REQUEST, Files, Key, Postgres, SSL_REQUEST, Talk, ask, begin, cancel, welcome,
};
use crate::support::{Sidecar, until};

const CANCEL: &str = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Cancel\"";

/// Connections until both servers have one, and their keys.
async fn sessions(
    connect: impl AsyncFn() -> Box<dyn Talk>,
    servers: [u8; 2],
) -> (Vec<Box<dyn Talk>>, [Key; 2]) {
    let (mut streams, mut keys) = (Vec::new(), Vec::new());
    while !servers.iter().all(|letter| keys.iter().any(|key: &Key| key[4] == *letter)) {
        assert!(streams.len() < 50, "one server gets no connection");
        let mut stream = connect().await;
        keys.push(begin(&mut stream).await.unwrap());
        streams.push(stream);
    }
    let of = |letter| *keys.iter().find(|key| key[4] == letter).unwrap();
    (streams, servers.map(of))
}

/// Each server is asked to cancel what it does, and nothing else.
async fn each_its_own(sidecar: &Sidecar, connect: impl AsyncFn() -> Box<dyn Talk>, servers: [&Postgres; 2]) {
    let (streams, [a, b]) = sessions(&connect, [b'a', b'b']).await;
    for key in [b, a, b] {
        cancel(&mut connect().await, key).await;
    }
    assert_eq!((servers[0].cancelled(), servers[1].cancelled()), (vec![a], vec![b, b]));

    let mut unknown = a;
    unknown[7] ^= 0x80;
    cancel(&mut connect().await, unknown).await;
    until("it is counted", || sidecar.metric(CANCEL) > 0.5).await;

    drop(streams);
    until("they have ended", || sidecar.metric("sidecar_tcp_connections") < 0.5).await;
    cancel(&mut connect().await, a).await;
    until("it is counted", || sidecar.metric(CANCEL) > 1.5).await;
    assert_eq!((servers[0].cancelled(), servers[1].cancelled()), (vec![a], vec![b, b]));
}

#[tokio::test]
async fn a_request_to_cancel_reaches_the_server_that_runs_the_query_and_only_while_it_may() {
    let (a, b) = (Postgres::start(b'a', None).await, Postgres::start(b'b', None).await);
    let sidecar = Sidecar::start(json!({"protocol": "Postgres"}), &[a.address, b.address]).await;
    let connect = async || Box::new(sidecar.connect().await) as Box<dyn Talk>;
    each_its_own(&sidecar, connect, [&a, &b]).await;
}

/// As libpq 17 and psycopg do with sslmode=prefer.
#[tokio::test]
async fn a_request_to_cancel_that_comes_behind_a_no_to_tls_reaches_its_server() {
    let (a, b) = (Postgres::start(b'a', None).await, Postgres::start(b'b', None).await);
    let sidecar = Sidecar::start(json!({"protocol": "Postgres"}), &[a.address, b.address]).await;
    let connect = async || {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
        Box::new(stream) as Box<dyn Talk>
    };
    each_its_own(&sidecar, connect, [&a, &b]).await;
}

#[tokio::test]
async fn a_request_to_cancel_finds_its_server_within_tls_on_both_sides() {
    let files = Files::new();
    let (a, b) = (
        Postgres::start(b'a', Some(files.acceptor())).await,
        Postgres::start(b'b', Some(files.acceptor())).await,
    );
    let fields = json!({
        "tls": {"certificateFile": files.path("tls.crt"), "keyFile": files.path("tls.key"), "startTls": "Postgres"},
        "backendTls": {"caFile": files.path("tls.crt"), "serverName": "db.example.com", "startTls": "Postgres"},
    });
    let sidecar = Sidecar::start(fields, &[a.address, b.address]).await;
    let connect = async || {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'S');
        Box::new(files.secure(stream, &[]).await.unwrap()) as Box<dyn Talk>
    };
    each_its_own(&sidecar, connect, [&a, &b]).await;
}

#[tokio::test]
async fn a_request_to_cancel_in_plain_text_is_heard_where_sessions_are_within_tls() {
    let files = Files::new();
    let (a, b) = (Postgres::start(b'a', None).await, Postgres::start(b'b', None).await);
    let fields = json!({
        "tls": {"certificateFile": files.path("tls.crt"), "keyFile": files.path("tls.key"), "startTls": "Postgres"},
    });
    let sidecar = Sidecar::start(fields, &[a.address, b.address]).await;
    let connect = async || {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'S');
        Box::new(files.secure(stream, &[]).await.unwrap()) as Box<dyn Talk>
    };
    let (_streams, [_, key]) = sessions(connect, [b'a', b'b']).await;
    // As psql before version 17 does.
    cancel(&mut sidecar.connect().await, key).await;
    assert_eq!((a.cancelled(), b.cancelled()), (vec![], vec![key]));
}

#[tokio::test]
async fn a_request_to_cancel_reaches_a_server_that_has_as_many_connections_as_it_may() {
    let server = Postgres::start(b'a', None).await;
    let fields = json!({"protocol": "Postgres", "backendLimits": {"maxConnections": 1}});
    let sidecar = Sidecar::start(fields, &[server.address]).await;
    let mut stream = sidecar.connect().await;
    let key = begin(&mut stream).await.unwrap();
    cancel(&mut sidecar.connect().await, key).await;
    assert_eq!(server.cancelled(), [key]);
}

#[tokio::test]
async fn a_request_to_cancel_behind_a_no_to_tls_does_not_wait_for_room() {
    let server = Postgres::start(b'a', None).await;
    let limits = json!({"maxConnections": 1, "queueTimeout": "10m"});
    let fields = json!({"protocol": "Postgres", "backendLimits": limits});
    let sidecar = Sidecar::start(fields, &[server.address]).await;
    let connect = async || {
        let mut stream = sidecar.connect().await;
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
        stream
    };
    let mut stream = connect().await;
    let key = begin(&mut stream).await.unwrap();
    cancel(&mut connect().await, key).await;
    assert_eq!(server.cancelled(), [key]);
    // Who wants a server waits for its room.
    let mut next = connect().await;
    let begun = tokio::spawn(async move { begin(&mut next).await.unwrap() });
    until("it waits", || sidecar.metric("sidecar_tcp_queued") > 0.5).await;
    drop(stream);
    assert_ne!(crate::support::in_time("room", begun).await.unwrap(), key);
}

#[tokio::test]
async fn a_request_to_cancel_that_its_server_has_taken_is_no_failure_if_the_server_does_not_close() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (server, taken) = (socket.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&taken);
    let serving = tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut head = [0; 8];
            match stream.read_exact(&mut head).await {
                Ok(_) if head == REQUEST => {
                    stream.read_exact(&mut Key::default()).await.unwrap();
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(_) => stream.write_all(&welcome(*b"\0\0\0\x01abcd")).await.unwrap(),
                // A check says nothing.
                Err(_) => continue,
            }
            open.push(stream);
        }
    });
    let fields = json!({"protocol": "Postgres", "timeouts": {"connect": "1s"}});
    let sidecar = Sidecar::start(fields, &[server]).await;
    let mut stream = sidecar.connect().await;
    let key = begin(&mut stream).await.unwrap();
    cancel(&mut sidecar.connect().await, key).await;
    assert_eq!(taken.load(Ordering::Relaxed), 1);
    // One that does fail, so that the first would be counted by now.
    cancel(&mut sidecar.connect().await, *b"\0\0\0\x01else").await;
    until("it is counted", || sidecar.metric(CANCEL) > 0.5).await;
    assert!(sidecar.metric(CANCEL) < 1.5);
    serving.abort();
}
