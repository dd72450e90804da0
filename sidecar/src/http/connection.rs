//! One connection of a client: hyper's HTTP/1.1 loop around the forward step, the watch, and the drain.

use std::{cell::RefCell, convert::Infallible, pin::pin, rc::Rc, sync::Arc, time::Duration};

use futures::future::LocalBoxFuture;
use http::{HeaderValue, header};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use super::{
    client::{Client, ClientIo, Verdict, WATCH, Watch},
    forward::forward,
    thread::{Phase, Thread},
};
use crate::net::Accepted;

/// Request heads beyond this are answered with 431.
const MAX_HEAD: usize = 64 * 1024;

/// While draining, an idle connection stays open this long for a request that may be on its way.
const LINGER: Duration = Duration::from_secs(1);

/// Copies bytes both ways after an upgrade; set by the forward step, run when the HTTP connection has ended.
pub(super) type Tunnel = Rc<RefCell<Option<LocalBoxFuture<'static, ()>>>>;

pub(super) async fn serve(thread: Rc<Thread>, accepted: Accepted, mut phase: watch::Receiver<Phase>) {
    let (stream, slot) = match accepted.open(thread.tls().as_deref()).await {
        Ok(opened) => opened,
        Err(error) => {
            return tracing::debug!(listener = %thread.listener, %error, "a connection could not be served");
        }
    };
    let client = Arc::<Client>::default();
    let tunnel = Tunnel::default();
    let io = TokioIo::new(ClientIo::new(stream, Arc::clone(&client)));
    let service = {
        let (thread, client, tunnel) = (Rc::clone(&thread), Arc::clone(&client), Rc::clone(&tunnel));
        service_fn(move |request| {
            let (thread, client, tunnel) = (Rc::clone(&thread), Arc::clone(&client), Rc::clone(&tunnel));
            async move {
                let mut response = forward(&thread, &client, &tunnel, request).await;
                if thread.is_draining() && !response.headers().contains_key(header::CONNECTION) {
                    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
                }
                Ok::<_, Infallible>(response)
            }
        })
    };
    let connection = http1::Builder::new()
        .auto_date_header(false)
        .header_read_timeout(None)
        .max_header_size(MAX_HEAD)
        .serve_connection(io, service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let mut timer = pin!(sleep(WATCH));
    let mut watch = Watch::default();
    let mut draining = thread.is_draining();
    if draining {
        timer.as_mut().reset(Instant::now() + LINGER);
    }
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(listener = %thread.listener, %error, "connection of a client ended");
                }
                break;
            }
            () = timer.as_mut() => {
                if draining {
                    connection.as_mut().graceful_shutdown();
                }
                match watch.look(&client) {
                    Verdict::Fine => {}
                    Verdict::Idle => connection.as_mut().graceful_shutdown(),
                    Verdict::Slow => {
                        tracing::debug!(listener = %thread.listener, "the head of a request did not come to its end");
                        break;
                    }
                }
                timer.as_mut().reset(Instant::now() + WATCH);
            }
            changed = phase.changed(), if !draining => {
                if changed.is_err() {
                    break;
                }
                draining = true;
                timer.as_mut().reset(Instant::now() + LINGER);
            }
        }
    }
    let tunnel = tunnel.take();
    if let Some(tunnel) = tunnel {
        tunnel.await;
    }
    drop(slot);
}
