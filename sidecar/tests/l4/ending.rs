//! How one side ends is how the other sees it end: an end of the bytes, or a break.

use std::{io, time::Duration};

use serde_json::json;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Backend, Sidecar, in_time, until};

#[tokio::test]
async fn an_end_of_the_clients_bytes_becomes_an_end_of_the_backends_and_its_answer_still_comes() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        let (mut client, _) = sidecar.greeted().await;
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        in_time("the answer", client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!(answer, "last words");
        clients.push(client);
    }
    until("the backend has no connection left", || backend.open() == 0).await;
    until("nor has the sidecar", || sidecar.listener.connections() == 0).await;
}

#[tokio::test]
async fn a_client_that_is_gone_leaves_no_connection_behind() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    let mut clients = Vec::new();
    for _ in 0..50 {
        clients.push(sidecar.greeted().await);
    }
    assert!(backend.open() >= 50);
    drop(clients);
    until("the backend has no connection left", || backend.open() == 0).await;
    until("nor has the sidecar", || sidecar.listener.connections() == 0).await;
}

#[tokio::test]
async fn a_break_of_the_backend_reaches_the_client_as_a_break() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(json!({}), &[socket.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    client.write_all(b"x").await.unwrap();
    let mut server = accept(&socket).await;
    server.write_all(b"half an answ").await.unwrap();
    in_time("what comes first", client.read_exact(&mut [0; 12])).await.unwrap();
    SockRef::from(&server).set_linger(Some(Duration::ZERO)).unwrap();
    drop(server);
    let end = in_time("the end", client.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    let broke = "sidecar_tcp_failed_total{listener=\"db\",cause=\"BackendBroke\"";
    until("the break is counted", || sidecar.metric(broke) > 0.5).await;
}

#[tokio::test]
async fn a_break_of_the_client_reaches_the_backend_as_a_break() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(json!({}), &[socket.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    client.write_all(b"x").await.unwrap();
    let mut server = accept(&socket).await;
    SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
    drop(client);
    let end = in_time("the end", server.read_to_end(&mut Vec::new())).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

/// The first connection that says something: those of checks have nothing to say.
async fn accept(socket: &TcpListener) -> TcpStream {
    loop {
        let (mut stream, _) = in_time("a connection", socket.accept()).await.unwrap();
        if in_time("a byte", stream.read(&mut [0])).await.unwrap_or(0) > 0 {
            return stream;
        }
    }
}

#[tokio::test]
async fn a_silent_connection_ends_after_its_time_and_a_busy_one_does_not() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({"timeouts": {"idle": "400ms"}}), &[backend.address]).await;
    let (mut silent, _) = sidecar.greeted().await;
    let (mut busy, _) = sidecar.greeted().await;
    let talking = tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        for _ in 0..20 {
            tick.tick().await;
            busy.write_u8(1).await.unwrap();
            busy.read_u8().await.unwrap();
        }
    });
    assert!(in_time("the end", silent.read_u8()).await.is_err());
    in_time("the busy one goes on", talking).await.unwrap();
    assert!(sidecar.metric("sidecar_tcp_failed_total{listener=\"db\",cause=\"Idle\"") > 0.5);
}

#[tokio::test]
async fn a_drain_waits_for_connections_and_takes_no_new_ones() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    let (mut client, _) = sidecar.greeted().await;
    let address = sidecar.address();
    let drain = tokio::spawn(sidecar.drain(Duration::from_secs(20)));
    in_time("no new connections", async {
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    client.write_u8(7).await.unwrap();
    assert_eq!(in_time("an echo", client.read_u8()).await.unwrap(), 7);
    assert!(!drain.is_finished());
    drop(client);
    in_time("the drain ends with the last connection", drain).await.unwrap();
}

#[tokio::test]
async fn what_is_left_after_the_drains_time_is_cut_off() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    let (mut client, _) = sidecar.greeted().await;
    in_time("the drain", sidecar.drain(Duration::from_millis(200))).await;
    let end = in_time("the end", client.read_to_end(&mut Vec::new())).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    until("the backend has no connection left", || backend.open() == 0).await;
}
