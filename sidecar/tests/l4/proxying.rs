//! Who the client is, told and believed by the PROXY protocol.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::support::{Backend, Sidecar, in_time};

/// A server, and the first bytes of the first connection that says something.
async fn heard(
    fields: serde_json::Value,
    said: &[u8],
    length: usize,
) -> (Vec<u8>, std::net::SocketAddr, std::net::SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(fields, &[socket.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    client.write_all(said).await.unwrap();
    let heard = async {
        loop {
            let (mut stream, _) = socket.accept().await.unwrap();
            let mut bytes = vec![0; length];
            // Checks go without a word.
            if stream.read_exact(&mut bytes).await.is_ok() {
                return bytes;
            }
        }
    };
    let bytes = in_time("the first bytes", heard).await;
    (bytes, client.local_addr().unwrap(), sidecar.address())
}

#[tokio::test]
async fn a_backend_is_told_of_the_client_in_the_version_that_is_asked_for() {
    let fields = json!({"proxyProtocol": {"send": "V1"}});
    let (bytes, client, own) = heard(fields, b"hello", 30).await;
    let line = format!("PROXY TCP4 127.0.0.1 127.0.0.1 {} {}\r\nhello", client.port(), own.port());
    assert_eq!(String::from_utf8_lossy(&bytes), line[..30]);

    let fields = json!({"proxyProtocol": {"send": "V2"}});
    let (bytes, client, own) = heard(fields, b"hello", 33).await;
    assert_eq!(bytes[12..16], [0x21, 0x11, 0, 12]);
    assert_eq!(bytes[24..28], [client.port().to_be_bytes(), own.port().to_be_bytes()].concat());
    assert_eq!(&bytes[28..], b"hello");
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_believed_where_that_is_wanted_and_passed_on() {
    let fields = json!({"proxyProtocol": {"accept": true, "send": "V1"}});
    let said = b"PROXY TCP6 fd00::1 fd00::2 4000 5432\r\nhello";
    let (bytes, ..) = heard(fields, said, said.len()).await;
    assert_eq!(bytes, said);
}

#[tokio::test]
async fn a_client_that_does_not_say_who_it_is_gets_no_backend_where_that_is_wanted() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({"proxyProtocol": {"accept": true}}), &[backend.address]).await;
    let mut client = sidecar.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(in_time("the end", client.read_to_end(&mut Vec::new())).await, Ok(0) | Err(_)));
    let failed = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Handshake\"";
    crate::support::until("it is counted", || sidecar.metric(failed) > 0.5).await;
}
