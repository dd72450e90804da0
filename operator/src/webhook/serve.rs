//! accept -> TLS handshake -> HTTP/1.1 or h2 -> router. Requests in flight are finished when the shutdown is asked for.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use axum::{Router, body::Body};
use hyper::{Request, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
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
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use tracing::{debug, warn};

/// Most connections at once. API servers keep a handful each; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 512;
const MAX_STREAMS: u32 = 256;
const HANDSHAKE_TIME: Duration = Duration::from_secs(5);
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
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
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
    listener.local_addr().map_err(ServeError::Listener)?;
    let builder = Arc::new(protocols());
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Some((stream, permit)) = shutdown.run_until_cancelled(accept(&listener, &room)).await {
        while connections.try_join_next().is_some() {}
        let acceptor = TlsAcceptor::from(tls.load_full());
        let (builder, router, watcher) = (builder.clone(), router.clone(), graceful.watcher());
        connections.spawn(async move {
            let _permit = permit;
            let Ok(Ok(stream)) = timeout(HANDSHAKE_TIME, acceptor.accept(stream)).await else {
                debug!("a connection ended before its TLS handshake did");
                return;
            };
            let service = service_fn(move |request: Request<Incoming>| respond(router.clone(), request));
            let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
            if let Err(error) = watcher.watch(connection).await {
                debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    if timeout(grace, graceful.shutdown()).await.is_err() {
        warn!(
            connections = connections.len(),
            "connections are cut off, for their requests outlast the grace period"
        );
    }
    connections.shutdown().await;
    Ok(())
}

fn protocols() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(IDLE_TIME);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(IDLE_TIME)
        .keep_alive_timeout(PING_TIME);
    builder
}

/// The next connection, and its place among the open ones.
async fn accept(listener: &TcpListener, room: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    let permit = room.clone().acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "a connection was gone before it was accepted");
                }
                return (stream, permit);
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
