//! accept -> TLS handshake -> HTTP/1.1 or h2 -> router. Requests in flight are finished when the shutdown is asked for.
//!
//! No peer can keep the API servers out: a connection must ask something soon, and one address has only so many.

use std::{convert::Infallible, future::pending, io, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use hyper::{
    Request,
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::peers::Peers;

const H2: &[u8] = b"h2";

/// Most connections at once. API servers keep a handful each; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
/// Most connections of one address at once; further ones are closed. Many API servers may share a proxy's address.
const MAX_PER_ADDRESS: usize = 64;
const MAX_STREAMS: u32 = 256;
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
/// API servers connect when they have a request, and send it at once.
const FIRST_REQUEST: Duration = Duration::from_secs(10);
/// An h2 connection is asked to end after this time, so that none that is idle stays for ever. Its peer opens another.
const MAX_AGE: Duration = Duration::from_secs(3600);
/// Longest that requests in flight keep a connection that should end. An admission has 5 s.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// A connection without a request is closed after this time. API servers close theirs after 90 s and must be the first:
/// a request that crosses the server's close fails, and with it a pod's creation.
const IDLE_TIME: Duration = Duration::from_secs(150);
/// An h2 peer that does not answer a ping within this time is gone.
const PING_TIME: Duration = Duration::from_secs(20);
/// Pause after a failure to accept, such as too many open files, that would only repeat at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the webhook cannot serve. The operator's administrator can fix it.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("the webhook's listening socket is not usable")]
    Listener(#[source] io::Error),
}

/// The webhook's TLS settings around a certificate: TLS 1.2 and 1.3, HTTP/2 first, as API servers prefer it.
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![H2.to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What peers may take, so that none of them can keep the others out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub connections: usize,
    pub per_address: usize,
    pub first_request: Duration,
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: MAX_CONNECTIONS,
            per_address: MAX_PER_ADDRESS,
            first_request: FIRST_REQUEST,
            age: MAX_AGE,
        }
    }
}

/// Serves until `shutdown`, then finishes requests in flight for at most `grace`. Each new connection takes the
/// newest `tls`.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    serve_within(Limits::default(), listener, tls, router, shutdown, grace).await
}

pub(super) async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    tls: Arc<ArcSwap<ServerConfig>>,
    router: Router,
    shutdown: CancellationToken,
    grace: Duration,
) -> Result<(), ServeError> {
    listener.local_addr().map_err(ServeError::Listener)?;
    let room = Arc::new(Semaphore::new(limits.connections));
    let peers = Peers::new(limits.per_address);
    let mut connections = JoinSet::new();
    while let Some((stream, address, permit)) = shutdown.run_until_cancelled(accept(&listener, &room)).await {
        while connections.try_join_next().is_some() {}
        let Some(place) = peers.admit(address) else {
            debug!(%address, "a connection is refused: its peer has {} already", limits.per_address);
            continue;
        };
        let acceptor = TlsAcceptor::from(tls.load_full());
        let (router, shutdown) = (router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _places = (permit, place);
            let Ok(Ok(stream)) = timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await else {
                debug!("a connection ended before its TLS handshake did");
                return;
            };
            talk(stream, router, &limits, shutdown).await;
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if timeout(grace, finished).await.is_err() {
        warn!(
            connections = connections.len(),
            "connections are cut off, for their requests outlast the grace period"
        );
    }
    connections.shutdown().await;
    Ok(())
}

/// Speaks the protocol that the handshake agreed on: to find it out from the first bytes would mean to wait for them.
async fn talk(stream: TlsStream<TcpStream>, router: Router, limits: &Limits, shutdown: CancellationToken) {
    let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
    let asked = CancellationToken::new();
    let first = asked.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        first.cancel();
        respond(router.clone(), request)
    });
    let stream = TokioIo::new(stream);
    let talk = async {
        if is_h2 {
            let end = async { drop(timeout(limits.age, shutdown.cancelled()).await) };
            drive(h2().serve_connection(stream, service), end).await
        } else {
            // No age: a request may cross the close of an HTTP/1.1 connection. An idle one ends by itself.
            drive(h1().serve_connection(stream, service), shutdown.cancelled()).await
        }
    };
    let silence = async {
        if timeout(limits.first_request, asked.cancelled()).await.is_ok() {
            pending().await
        }
    };
    tokio::select! {
        ended = talk => if let Err(error) = ended {
            debug!(%error, "a connection ended early");
        },
        () = silence => debug!("a connection is closed, for it asked nothing"),
    }
}

/// Until the peer is done; after `end`, no longer than requests in flight take.
async fn drive<C: GracefulConnection>(connection: C, end: impl Future<Output = ()>) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = end => connection.as_mut().graceful_shutdown(),
    }
    timeout(LAST_REQUESTS, connection).await.unwrap_or(Ok(()))
}

fn h1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIME);
    builder
}

fn h2() -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(IDLE_TIME)
        .keep_alive_timeout(PING_TIME);
    builder
}

/// The next connection, and its place among the open ones.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, IpAddr, Option<OwnedSemaphorePermit>) {
    let permit = room.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a connection was gone before it was accepted");
                }
                return (stream, peer.ip().to_canonical(), permit);
            }
            Err(error) => {
                warn!(%error, "a connection cannot be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn respond(router: Router, request: Request<Incoming>) -> Result<axum::response::Response, Infallible> {
    router.oneshot(request.map(Body::new)).await
}
