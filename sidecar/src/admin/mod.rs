//! /live, /ready and /metrics, on the pod's address, for kubelet and Prometheus. Nothing here changes state.
//!
//! accept -> one GET or HEAD -> close. Connections are few and short, so that nobody who holds them open keeps kubelet
//! out for longer than its probes bear.

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
/// Time for a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for a connection, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(5);
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
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection to the admin endpoints ended");
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::runtime::Health;

    #[tokio::test]
    async fn whoever_holds_all_connections_keeps_probes_out_for_a_moment_only() {
        let server = Server::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = server.address().unwrap();
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let endpoints = Endpoints::new(Arc::new(Health::new()), Registry::default());
        tasks.spawn(server.serve(Arc::new(endpoints), tasks.clone(), stop.clone()));
        let mut held = Vec::new();
        for index in 0..MAX_CONNECTIONS {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // Half of them say nothing, half of them have asked and would ask again.
            if index % 2 == 0 {
                stream.write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
            }
            held.push(stream);
        }
        let mut probe = TcpStream::connect(address).await.unwrap();
        probe.write_all(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        time::timeout(HEAD_TIMEOUT * 3, probe.read_to_end(&mut answer)).await.unwrap().unwrap();
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
        drop(held);
        stop.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
