//! TLS that is asked for first, by clients and of servers.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::server::{Files, GSS_REQUEST, Postgres, SSL_REQUEST, ask, begin, echoes};
use crate::support::{Sidecar, in_time, until};

const HANDSHAKE: &str = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Handshake\"";
const CONNECT: &str = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Connect\"";

/// A listener that ends TLS, with more settings of its `tls`.
fn ending(files: &Files, more: &Value) -> Value {
    let mut tls = json!({"certificateFile": files.path("tls.crt"), "keyFile": files.path("tls.key"), "startTls": "Postgres"});
    tls.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({ "tls": tls })
}

/// A listener that speaks TLS with servers of this name.
fn beginning(files: &Files, name: &str) -> Value {
    json!({"backendTls": {"caFile": files.path("tls.crt"), "serverName": name, "startTls": "Postgres"}})
}

#[tokio::test]
async fn a_client_that_asks_for_tls_gets_it_and_the_server_sees_plain_text() {
    let (files, server) = (Files::new(), Postgres::start(b'a', None).await);
    let sidecar = Sidecar::start(ending(&files, &json!({})), &[server.address]).await;
    for gss_first in [true, false] {
        let mut stream = sidecar.connect().await;
        if gss_first {
            assert_eq!(ask(&mut stream, GSS_REQUEST).await, b'N');
        }
        assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'S');
        let mut stream = files.secure(stream, &[b"postgresql"]).await.unwrap();
        begin(&mut stream).await.unwrap();
        assert!(echoes(&mut stream, &vec![7; 300_000]).await);
    }
}

#[tokio::test]
async fn a_client_that_begins_with_tls_at_once_is_served_too_by_the_protocols_name() {
    let (files, server) = (Files::new(), Postgres::start(b'a', None).await);
    let sidecar = Sidecar::start(ending(&files, &json!({})), &[server.address]).await;
    let mut stream = files.secure(sidecar.connect().await, &[b"postgresql"]).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"postgresql"[..]));
    begin(&mut stream).await.unwrap();
    let foreign = files.secure(sidecar.connect().await, &[b"h2"]).await;
    assert!(foreign.is_err(), "who wants to speak something else is told so");
}

#[tokio::test]
async fn a_client_that_does_not_ask_for_tls_is_refused_in_words_or_served_as_the_field_says() {
    let (files, server) = (Files::new(), Postgres::start(b'a', None).await);
    let sidecar = Sidecar::start(ending(&files, &json!({})), &[server.address]).await;
    let error = begin(&mut sidecar.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("connect with sslmode=require"), "{error}");
    until("it is counted", || sidecar.metric(HANDSHAKE) > 0.5).await;

    sidecar.update(ending(&files, &json!({"plainText": "Allow"})));
    let mut stream = sidecar.connect().await;
    begin(&mut stream).await.unwrap();
    assert!(echoes(&mut stream, b"select 1").await);
}

#[tokio::test]
async fn what_stands_in_plain_text_behind_the_request_for_tls_is_not_believed() {
    let (files, server) = (Files::new(), Postgres::start(b'a', None).await);
    let sidecar = Sidecar::start(ending(&files, &json!({})), &[server.address]).await;
    let mut stream = sidecar.connect().await;
    let injected = b"\0\0\0\x12\0\x03\0\0user\0eve\0\0";
    stream.write_all(&[&SSL_REQUEST[..], injected].concat()).await.unwrap();
    let answer = in_time("the answer", stream.read_u8()).await.unwrap();
    assert_eq!(answer, b'S');
    assert!(files.secure(stream, &[]).await.is_err());
    until("it is counted", || sidecar.metric(HANDSHAKE) > 0.5).await;
}

#[tokio::test]
async fn a_client_that_speaks_something_else_gets_no_server() {
    let server = Postgres::start(b'a', None).await;
    let sidecar = Sidecar::start(json!({"protocol": "Postgres"}), &[server.address]).await;
    let mut stream = sidecar.connect().await;
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(matches!(in_time("the end", stream.read(&mut [0])).await, Ok(0) | Err(_)));
    until("it is counted", || sidecar.metric(HANDSHAKE) > 0.5).await;
}

#[tokio::test]
async fn servers_are_asked_for_tls_and_their_name_is_verified_for_a_client_in_plain_text() {
    let files = Files::new();
    let server = Postgres::start(b'a', Some(files.acceptor())).await;
    let sidecar = Sidecar::start(beginning(&files, "db.example.com"), &[server.address]).await;
    let mut stream = sidecar.connect().await;
    // It need not ask, and hears no when it does: TLS is the sidecar's to speak.
    assert_eq!(ask(&mut stream, SSL_REQUEST).await, b'N');
    begin(&mut stream).await.unwrap();
    assert!(echoes(&mut stream, &vec![7; 300_000]).await);

    sidecar.update(beginning(&files, "other.example.com"));
    until("it is another server", || sidecar.metric("sidecar_tcp_backend_up") < 0.5).await;
    let error = begin(&mut sidecar.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("57P03"), "{error}");
    assert!(
        error.to_string().contains("no server can be reached through the sidecar's listener db"),
        "{error}"
    );
    until("it is counted", || sidecar.metric(CONNECT) > 0.5).await;
}

#[tokio::test]
async fn a_server_without_tls_is_a_failed_attempt_and_another_one_is_asked() {
    let files = Files::new();
    let (plain, within) =
        (Postgres::start(b'a', None).await, Postgres::start(b'b', Some(files.acceptor())).await);
    let fields = beginning(&files, "db.example.com");
    let sidecar = Sidecar::start(fields, &[plain.address, within.address]).await;
    for _ in 0..4 {
        let key = begin(&mut sidecar.connect().await).await.unwrap();
        assert_eq!(key[4], b'b');
    }
    let alone = Sidecar::start(beginning(&files, "db.example.com"), &[plain.address]).await;
    let error = begin(&mut alone.connect().await).await.unwrap_err();
    assert!(error.to_string().contains("answered N to SSLRequest"), "{error}");
}

#[tokio::test]
async fn a_server_that_sends_more_than_its_answer_in_plain_text_is_not_believed() {
    let files = Files::new();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let injecting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            let _ = stream.read_exact(&mut [0; 8]).await;
            let _ = stream.write_all(b"SE\0\0\0\x10injected").await;
        }
    });
    let sidecar = Sidecar::start(beginning(&files, "db.example.com"), &[address]).await;
    let error = begin(&mut sidecar.connect().await).await.unwrap_err();
    assert!(!error.to_string().contains("injected"), "{error}");
    injecting.abort();
}

#[tokio::test]
async fn much_goes_through_whole_after_the_first_words() {
    let server = Postgres::start(b'a', None).await;
    let sidecar = Sidecar::start(json!({"protocol": "Postgres"}), &[server.address]).await;
    let mut stream = sidecar.connect().await;
    begin(&mut stream).await.unwrap();
    let bytes: Vec<u8> = (0..8_000_000u32).map(|index| (index % 251) as u8).collect();
    let (mut read, mut write) = stream.split();
    let mut back = vec![0; bytes.len()];
    let both = async { tokio::join!(write.write_all(&bytes), read.read_exact(&mut back)) };
    let (written, read) = in_time("an echo", both).await;
    written.and(read).unwrap();
    assert!(back == bytes);
}
