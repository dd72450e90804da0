//! Sends reviews: paced, so that a slow answer delays no other, or as fast as answers come.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, body::Body};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, StatusCode,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;
use tower::ServiceExt;

use crate::{Failure, figures::Samples, review, server::Child};

/// As many as a few API servers keep.
const CONNECTIONS: usize = 4;
/// Requests at once when nothing paces them.
const AT_ONCE: usize = 32;

/// Microseconds that one admission takes without a network.
pub(crate) async fn in_process(router: &Router, body: &[u8]) -> Result<f64, Failure> {
    let started = Instant::now();
    let request = Request::post("/inject")
        .header("content-type", "application/json")
        .header("content-length", body.len())
        .body(Body::from(body.to_vec()))?;
    let response = router.clone().oneshot(request).await?;
    let ok = response.status() == StatusCode::OK;
    let answer = response.into_body().collect().await?.to_bytes();
    let taken = started.elapsed();
    if ok && answer.len() > 1_000 { Ok(micros(taken)) } else { Err("an admission failed".into()) }
}

/// Latencies at `rate` requests a second, each counted from when it was sent.
pub(crate) async fn paced(child: &Child, rate: u32, time: Duration) -> Result<Samples, Failure> {
    let senders = connect(child).await?;
    let body = Bytes::from(review::bytes());
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    let mut requests = JoinSet::new();
    let count = (time.as_secs_f64() * f64::from(rate)) as usize;
    for index in 0..count {
        ticks.tick().await;
        requests.spawn(send(senders[index % CONNECTIONS].clone(), body.clone()));
    }
    let mut samples = Samples::default();
    while let Some(latency) = requests.join_next().await {
        samples.push(latency??);
    }
    Ok(samples)
}

/// Requests a second when the next is sent as soon as one is answered.
pub(crate) async fn unpaced(child: &Child, time: Duration) -> Result<f64, Failure> {
    let senders = connect(child).await?;
    let body = Bytes::from(review::bytes());
    let (started, mut loops) = (Instant::now(), JoinSet::new());
    for index in 0..AT_ONCE {
        let (sender, body) = (senders[index % CONNECTIONS].clone(), body.clone());
        loops.spawn(async move {
            let mut count = 0u32;
            while started.elapsed() < time {
                send(sender.clone(), body.clone()).await?;
                count += 1;
            }
            Ok::<_, Failure>(count)
        });
    }
    let mut total = 0;
    while let Some(count) = loops.join_next().await {
        total += count??;
    }
    Ok(f64::from(total) / started.elapsed().as_secs_f64())
}

async fn send(mut sender: SendRequest<Full<Bytes>>, body: Bytes) -> Result<f64, Failure> {
    let started = Instant::now();
    let request = Request::post("https://localhost/inject?timeout=5s")
        .header("content-type", "application/json")
        .body(Full::new(body))?;
    sender.ready().await?;
    let response = sender.send_request(request).await?;
    let ok = response.status() == StatusCode::OK;
    response.into_body().collect().await?;
    if ok { Ok(micros(started.elapsed())) } else { Err("an admission failed".into()) }
}

async fn connect(child: &Child) -> Result<Vec<SendRequest<Full<Bytes>>>, Failure> {
    let mut roots = RootCertStore::empty();
    roots.add(child.certificate.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let connector = TlsConnector::from(Arc::new(config));
    let mut senders = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(child.address).await?;
        stream.set_nodelay(true)?;
        let stream = connector.connect(ServerName::try_from("localhost")?, stream).await?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        senders.push(sender);
    }
    Ok(senders)
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}
