//! What a real server makes of what is passed on of messages that two readers could read in two ways: the answers of another
//! reader than our own, which decide whether a request was smuggled.

#[path = "../smuggling/corpus.rs"]
mod corpus;

use std::net::SocketAddr;

use corpus::{CHUNKED, SMUGGLED, ambiguous, boundless, endless, harmless, torn};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::support::{DEADLINE, Nginx, Sidecar, until};

/// Sends it, and reads until there is such an answer or the connection ends.
async fn send(address: SocketAddr, request: &str, is_over: impl Fn(&[u8]) -> bool) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    let talk = async {
        // What is refused before its end cannot be sent to its end.
        let _ = stream.write_all(request.as_bytes()).await;
        while !is_over(&answer) && matches!(stream.read_buf(&mut answer).await, Ok(1..)) {}
    };
    timeout(DEADLINE, talk).await.unwrap();
}

/// What nginx answers, also to what it refuses itself.
fn is_whole(answer: &[u8]) -> bool {
    answer.ends_with(b"\r\n\r\nok") || answer.ends_with(b"</html>\r\n")
}

#[tokio::test]
async fn nginx_sees_no_request_but_those_that_were_forwarded() {
    let nginx = Nginx::recording().await;
    let sidecar = Sidecar::logging(&[nginx.address]).await;
    let refused = ambiguous().into_iter().map(|(request, _)| request).chain(boundless());
    let bodies = torn().into_iter().map(|(body, _)| body.to_owned()).chain(endless());
    let broken = bodies.map(|body| format!("{CHUNKED}{body}{SMUGGLED}"));
    let good: Vec<_> = harmless().into_iter().map(|(request, _)| request).collect();
    for request in refused.chain(broken).chain(good.clone()) {
        send(sidecar.address, &request, is_whole).await;
    }
    // Two at once on one connection, the second of which is none.
    for request in &good {
        send(sidecar.address, &format!("{request}{}", ambiguous()[0].0), |_| false).await;
    }
    let forwarded: u64 = sidecar.finish().await.iter().filter_map(|line| line["tries"].as_u64()).sum();
    // After this one there is nothing left of the sidecar's connections.
    send(nginx.address, "GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", |_| false).await;
    until("the last request", || nginx.seen().iter().any(|path| path == "/last")).await;
    let seen = nginx.seen();
    eprintln!("nginx has seen {} requests, of {forwarded} that were forwarded", seen.len() - 1);
    assert!(!seen.iter().any(|path| path.contains("smuggled")), "{seen:?}");
    assert!(seen.len() > good.len() && seen.len() as u64 - 1 <= forwarded, "{forwarded} forwarded: {seen:?}");
}
