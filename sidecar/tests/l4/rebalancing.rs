//! Connections that are moved to backends that come later.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Backend, Sidecar, in_time, until};

/// Whether the other side has ended it.
fn is_over(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0]), Ok(0))
}

#[tokio::test]
async fn a_backend_that_joins_gets_its_share_of_quiet_connections_and_they_end_in_order() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let fields = json!({"rebalance": {"connectionsPerSecond": 100, "quiet": "200ms"}});
    let sidecar = Sidecar::start(fields, &[a.address]).await;
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(sidecar.greeted().await.0);
    }
    sidecar.set(&[a.address, b.address]);
    let over = || clients.iter().filter(|client| is_over(client)).count();
    until("half of them are closed", || over() == 4).await;
    let moved = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Rebalanced\"";
    until("it is counted", || (sidecar.metric(moved) - 4.0).abs() < 0.5).await;
    let mut back = Vec::new();
    for _ in 0..4 {
        let (client, name) = sidecar.greeted().await;
        assert_eq!(name, b'b');
        back.push(client);
    }
    // The next look comes after a second; nobody has too many now.
    tokio::time::timeout(Duration::from_millis(1500), until("never", || over() > 4)).await.unwrap_err();
}

#[tokio::test]
async fn a_query_under_way_and_an_answer_that_is_not_yet_read_are_not_cut() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let b = Backend::start(b'b').await;
    let fields = json!({"rebalance": {"connectionsPerSecond": 100, "quiet": "100ms"}});
    let sidecar = Sidecar::start(fields, &[socket.local_addr().unwrap()]).await;
    let (mut asking, mut server) = pair(&sidecar, &socket).await;
    let (reading, mut writer) = pair(&sidecar, &socket).await;
    // More than the sockets in between take.
    let piece = vec![7u8; 1 << 16];
    let mut written = 0;
    while let Ok(Ok(count)) = tokio::time::timeout(Duration::from_millis(300), writer.write(&piece)).await {
        written += count;
    }
    let (idle, mut answering) = pair(&sidecar, &socket).await;
    answering.write_all(b"y").await.unwrap();
    in_time("the answer", idle.readable()).await.unwrap();
    idle.try_read(&mut [0]).unwrap();
    sidecar.set(&[socket.local_addr().unwrap(), b.address]);
    until("the idle one is closed", || is_over(&idle)).await;
    // It is one of three, and the newcomer is to have one: had another been taken, this one would have stayed.
    server.write_all(b"z").await.unwrap();
    assert_eq!(in_time("an answer", asking.read_u8()).await.unwrap(), b'z');
    writer.shutdown().await.unwrap();
    let mut reading = reading;
    let mut read = Vec::new();
    in_time("all of it", reading.read_to_end(&mut read)).await.unwrap();
    assert_eq!(read.len(), written);
}

/// A client whose query has come to the server.
async fn pair(sidecar: &Sidecar, socket: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = sidecar.connect().await;
    client.write_all(b"x").await.unwrap();
    loop {
        let (mut server, _) = in_time("a connection", socket.accept()).await.unwrap();
        // Checks go without a word.
        if in_time("a byte", server.read(&mut [0])).await.unwrap_or(0) > 0 {
            return (client, server);
        }
    }
}
