//! An API server of a few lines: it gives the replies of a script, in order, as bytes over TCP.

use std::{
    collections::VecDeque,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{Request, Response, body::Frame, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpListener, sync::mpsc};

use crate::discovery::cluster::Cluster;

/// One answer of the script.
pub(super) enum Reply {
    Status(u16),
    List(Vec<Value>),
    /// Sends what comes out of the channel, and ends the watch with it.
    Watch(mpsc::UnboundedReceiver<Value>),
}

/// The server's script and what it was asked.
#[derive(Clone, Default)]
pub(super) struct FakeApi {
    script: Arc<Mutex<VecDeque<Reply>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl FakeApi {
    /// Starts a server with a script; when that is over, requests wait for ever.
    pub(super) async fn start(script: impl IntoIterator<Item = Reply>) -> (Self, Arc<Cluster>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let fake = Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = fake.clone();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let server = server.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| server.clone().respond(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        (fake, Arc::new(Cluster::with_client(client)))
    }

    pub(super) fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    async fn respond(
        self,
        request: Request<Incoming>,
    ) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, hyper::Error> {
        self.requests.lock().unwrap().push(request.uri().to_string());
        let reply = self.script.lock().unwrap().pop_front();
        let Some(reply) = reply else { return std::future::pending().await };
        let (status, body) = match reply {
            Reply::Status(code) => {
                let message = format!("scripted {code}");
                let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                    "message": message, "reason": "Scripted", "code": code});
                (code, Full::from(status.to_string()).boxed_unsync())
            }
            Reply::List(items) => {
                let list = json!({"metadata": {"resourceVersion": "1"}, "items": items});
                (200, Full::from(list.to_string()).boxed_unsync())
            }
            Reply::Watch(events) => {
                let lines = futures::stream::unfold(events, |mut events| async {
                    let event = events.recv().await?;
                    Some((Ok::<_, Infallible>(Frame::data(Bytes::from(format!("{event}\n")))), events))
                });
                (200, StreamBody::new(lines.boxed()).boxed_unsync())
            }
        };
        Ok(Response::builder().status(status).body(body).unwrap())
    }
}

/// A watch and the channel that feeds it.
pub(super) fn watch() -> (mpsc::UnboundedSender<Value>, Reply) {
    let (sender, events) = mpsc::unbounded_channel();
    (sender, Reply::Watch(events))
}

/// A slice of ready endpoints.
pub(super) fn slice(name: &str, version: u32, addresses: &[&str]) -> Value {
    let endpoints: Vec<Value> =
        addresses.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "storage", "resourceVersion": version.to_string()},
        "addressType": "IPv4", "ports": [{"name": "http", "port": 9000}], "endpoints": endpoints,
    })
}

pub(super) fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}
