//! The listener: TLS, both protocols, a certificate that changes, and a shutdown that fails nobody.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, routing::get};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode, body::Incoming, client::conn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::generate_simple_self_signed;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName},
};
use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream},
    sync::Notify,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::CancellationToken;

use super::{
    super::serve::{Limits, serve_within},
    SOON, Webhook, opted_in,
};
use crate::webhook::{ServeError, server_config};

struct Server {
    address: SocketAddr,
    tls: Arc<ArcSwap<ServerConfig>>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

/// A new self-signed certificate and its server settings.
fn identity() -> (CertificateDer<'static>, ServerConfig) {
    let certified = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = certified.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    (certificate.clone(), server_config(vec![certificate], key).unwrap())
}

async fn start(router: Router, config: ServerConfig, grace: Duration) -> Server {
    start_within(Limits::default(), router, config, grace).await
}

async fn start_within(limits: Limits, router: Router, config: ServerConfig, grace: Duration) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let tls = Arc::new(ArcSwap::from_pointee(config));
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(serve_within(limits, listener, tls.clone(), router, shutdown.clone(), grace));
    Server { address, tls, shutdown, task }
}

async fn connect(
    address: SocketAddr,
    root: &CertificateDer<'static>,
    protocol: &[u8],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(root.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(address).await?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
    Ok(stream)
}

fn post() -> Request<Full<Bytes>> {
    let body = Full::new(Bytes::from(opted_in().to_string()));
    Request::post("https://localhost/inject")
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(body)
        .unwrap()
}

async fn text(response: hyper::Response<Incoming>) -> (StatusCode, String) {
    let status = response.status();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn reviews_are_answered_over_both_protocols() {
    let (root, config) = identity();
    let server = start(Webhook::with_policy().router, config, SOON).await;

    let stream = TokioIo::new(connect(server.address, &root, b"h2").await.unwrap());
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let second = tokio::spawn(connection);
    let (status, body) = text(sender.send_request(post()).await.unwrap()).await;
    assert!(status == StatusCode::OK && body.contains("JSONPatch"), "{body}");

    let stream = TokioIo::new(connect(server.address, &root, b"http/1.1").await.unwrap());
    let (mut sender, connection) = conn::http1::handshake(stream).await.unwrap();
    let first = tokio::spawn(connection);
    let (status, body) = text(sender.send_request(post()).await.unwrap()).await;
    assert!(status == StatusCode::OK && body.contains("JSONPatch"), "{body}");

    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    timeout(SOON, first).await.unwrap().unwrap().unwrap();
    timeout(SOON, second).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_new_certificate_is_served_to_the_next_connection() {
    let ((old, config), (new, next)) = (identity(), identity());
    let server = start(Webhook::with_policy().router, config, SOON).await;
    connect(server.address, &old, b"h2").await.unwrap();
    assert!(connect(server.address, &new, b"h2").await.is_err());
    server.tls.store(Arc::new(next));
    connect(server.address, &new, b"h2").await.unwrap();
    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
}

/// A route that says when a request has come, and answers when told.
fn slow() -> (Router, Arc<Notify>, Arc<Notify>) {
    let (arrived, answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (come, go) = (arrived.clone(), answer.clone());
    let route = get(move || async move {
        come.notify_one();
        go.notified().await;
        "done"
    });
    (Router::new().route("/slow", route), arrived, answer)
}

#[tokio::test]
async fn a_request_in_flight_is_answered_after_the_shutdown_was_asked_for() {
    let (root, config) = identity();
    let (router, arrived, answer) = slow();
    let server = start(router, config, SOON).await;
    let stream = TokioIo::new(connect(server.address, &root, b"h2").await.unwrap());
    let (mut sender, connection) = conn::http2::handshake(TokioExecutor::new(), stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("https://localhost/slow").body(Full::<Bytes>::default()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    timeout(SOON, arrived.notified()).await.unwrap();
    server.shutdown.cancel();
    answer.notify_one();
    let response = timeout(SOON, response).await.unwrap().unwrap().unwrap();
    assert_eq!(text(response).await, (StatusCode::OK, "done".to_owned()));
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    assert!(TcpStream::connect(server.address).await.is_err(), "no new connection is taken");
    drop(connection);
}

#[tokio::test]
async fn a_request_that_outlasts_the_grace_is_cut_off() {
    let (root, config) = identity();
    let (router, arrived, _answer) = slow();
    let server = start(router, config, Duration::from_millis(10)).await;
    let stream = TokioIo::new(connect(server.address, &root, b"http/1.1").await.unwrap());
    let (mut sender, connection) = conn::http1::handshake(stream).await.unwrap();
    let connection = tokio::spawn(connection);
    let request = Request::get("/slow").header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
    let response = tokio::spawn(sender.send_request(request));
    timeout(SOON, arrived.notified()).await.unwrap();
    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
    assert!(timeout(SOON, response).await.unwrap().unwrap().is_err());
    drop(connection);
}

#[tokio::test]
async fn a_peer_that_speaks_no_tls_is_dropped_and_hurts_nobody() {
    let (root, config) = identity();
    let server = start(Webhook::with_policy().router, config, SOON).await;
    let mut plain = TcpStream::connect(server.address).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut plain, b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = timeout(SOON, plain.read_to_end(&mut rest)).await.unwrap();
    connect(server.address, &root, b"h2").await.unwrap();
    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_peer_that_asks_nothing_is_closed_over_both_protocols() {
    let (root, config) = identity();
    let limits = Limits { first_request: Duration::from_millis(50), ..Limits::default() };
    let server = start_within(limits, Webhook::with_policy().router, config, SOON).await;
    for protocol in [&b"h2"[..], b"http/1.1"] {
        let mut silent = connect(server.address, &root, protocol).await.unwrap();
        let mut rest = Vec::new();
        let _ = timeout(SOON, silent.read_to_end(&mut rest)).await.expect("the server closes it");
    }
    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_address_with_too_many_connections_is_refused_until_one_ends() {
    let (root, config) = identity();
    let limits = Limits { per_address: 1, ..Limits::default() };
    let server = start_within(limits, Webhook::with_policy().router, config, SOON).await;
    let first = connect(server.address, &root, b"h2").await.unwrap();
    assert!(connect(server.address, &root, b"h2").await.is_err());
    drop(first);
    let again = async { while connect(server.address, &root, b"h2").await.is_err() {} };
    timeout(SOON, again).await.unwrap();
    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn an_h2_connection_of_full_age_is_asked_to_end() {
    let (root, config) = identity();
    let limits = Limits { age: Duration::from_millis(50), ..Limits::default() };
    let server = start_within(limits, Webhook::with_policy().router, config, SOON).await;
    let stream = TokioIo::new(connect(server.address, &root, b"h2").await.unwrap());
    let (sender, connection) =
        conn::http2::handshake::<_, _, Full<Bytes>>(TokioExecutor::new(), stream).await.unwrap();
    timeout(SOON, connection).await.expect("it ends though its sender is there").unwrap();
    drop(sender);
    server.shutdown.cancel();
    timeout(SOON, server.task).await.unwrap().unwrap().unwrap();
}
