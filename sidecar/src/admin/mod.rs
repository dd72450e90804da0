//! /live, /ready and /metrics, on the pod's address, for kubelet and Prometheus. Nothing here changes state.
//!
//! accept -> one GET or HEAD after another -> close. Connections are few, and each is bounded in time.

mod respond;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
pub use respond::Endpoints;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// More than probes and scrapers ever need, few enough to bound memory.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head, and between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a connection, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// Pause after accept has failed, as it does when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Why the endpoints cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error(
        "/live, /ready and /metrics cannot be served on {address} ({source}); free the port, or set --admin-address"
    )]
    Bind { address: SocketAddr, source: io::Error },
}

/// The bound socket.
pub struct Server {
    listener: TcpListener,
}

impl Server {
    pub async fn bind(address: SocketAddr) -> Result<Self, AdminError> {
        let listener =
            TcpListener::bind(address).await.map_err(|source| AdminError::Bind { address, source })?;
        Ok(Self { listener })
    }

    /// The address that it serves; the port is the real one where 0 was asked for.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is stopped.
    pub async fn serve(self, endpoints: Arc<Endpoints>, tasks: TaskTracker, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let permit = room.clone().acquire_owned();
            let accepted = stop.run_until_cancelled(async { (permit.await, self.listener.accept().await) });
            match accepted.await {
                Some((Ok(permit), Ok((stream, _)))) => {
                    let connection = connection(stream, endpoints.clone());
                    let stop = stop.clone();
                    tasks.spawn(async move {
                        let _ = stop
                            .run_until_cancelled_owned(time::timeout(CONNECTION_TIMEOUT, connection))
                            .await;
                        drop(permit);
                    });
                }
                Some((_, Err(error))) => {
                    tracing::warn!(%error, "a connection to the admin endpoints was not accepted");
                    time::sleep(ACCEPT_PAUSE).await;
                }
                Some((Err(_), _)) | None => return,
            }
        }
    }
}

async fn connection(stream: TcpStream, endpoints: Arc<Endpoints>) {
    let service = service_fn(move |request| {
        let response = endpoints.respond(request.method(), request.uri().path());
        async move { Ok::<_, std::convert::Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the admin endpoints ended");
    }
}
