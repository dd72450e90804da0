//! How clients prove their passwords to a server within TLS (SCRAM), with and without channel binding.

use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::task::AbortOnDropHandle;

use super::server::{Files, SSL_REQUEST, START, Talk, ask};
use crate::support::{Sidecar, in_time};

const OLDER: &[u8] = b"v\0\0\0\x0c\0\x03\0\0\0\0\0\0";
const BOTH: &[u8] = b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
const WITHOUT_PLUS: &[u8] = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
const REST: &[u8] = b"R\0\0\0\x08\0\0\0\0";

/// A server within TLS that speaks an older version of the protocol, offers SCRAM, a byte at a time, and leaves.
async fn offering(files: &Files) -> (SocketAddr, AbortOnDropHandle<()>) {
    let (socket, acceptor) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), files.acceptor());
    let address = socket.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let mut request = [0; 8];
            if stream.read_exact(&mut request).await.is_err() || request != SSL_REQUEST {
                continue;
            }
            stream.write_all(b"S").await.unwrap();
            // A check goes after the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            if stream.read_exact(&mut vec![0; START.len()]).await.is_err() {
                continue;
            }
            for byte in [OLDER, BOTH, REST].concat() {
                stream.write_u8(byte).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        }
    });
    (address, AbortOnDropHandle::new(task))
}

/// All that a server says to a client that begins a session.
async fn hears(mut stream: impl Talk) -> Vec<u8> {
    stream.write_all(START).await.unwrap();
    stream.flush().await.unwrap();
    let mut all = Vec::new();
    let _ = in_time("the end", stream.read_to_end(&mut all)).await;
    all
}

fn fields(files: &Files, more: Value) -> Value {
    let mut fields = more;
    fields["backendTls"] =
        json!({"caFile": files.path("tls.crt"), "serverName": "db.example.com", "startTls": "Postgres"});
    fields
}

#[tokio::test]
async fn a_client_in_plain_text_is_not_offered_to_bind_a_channel_that_it_does_not_have() {
    let files = Files::new();
    let (server, _serves) = offering(&files).await;
    let sidecar = Sidecar::start(fields(&files, json!({})), &[server]).await;
    assert_eq!(hears(sidecar.connect().await).await, [OLDER, WITHOUT_PLUS, REST].concat());
}

#[tokio::test]
async fn a_client_within_tls_is_offered_what_the_server_offers() {
    let files = Files::new();
    let (server, _serves) = offering(&files).await;
    let tls = json!({"certificateFile": files.path("tls.crt"), "keyFile": files.path("tls.key"), "startTls": "Postgres"});
    let sidecar = Sidecar::start(fields(&files, json!({"tls": tls})), &[server]).await;
    let mut stream = sidecar.connect().await;
    assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'S');
    let stream = files.secure(stream, &[]).await.unwrap();
    assert_eq!(hears(stream).await, [OLDER, BOTH, REST].concat());
}
