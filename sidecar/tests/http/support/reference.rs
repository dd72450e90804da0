//! A proxy made of hyper alone, for comparison: hyper's server reads a request, hyper's client sends it, and nothing is judged
//! or added on the way. Each request has a connection of its own to the backend.

use std::{convert::Infallible, net::SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::{
    body::{Bytes, Incoming},
    client, server,
    service::service_fn,
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

type Body = BoxBody<Bytes, hyper::Error>;

/// Of one connection alone, beside what `Connection` names.
const HOP_BY_HOP: [HeaderName; 3] = [header::CONNECTION, header::TE, header::UPGRADE];
const HOP_BY_HOP_TOO: [&str; 3] = ["keep-alive", "proxy-connection", "http2-settings"];

/// The bounds of the sidecar.
const MAX_HEAD: usize = 64 * 1024;
const MAX_FIELDS: usize = 128;

pub(crate) struct Reference {
    pub(crate) address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Reference {
    pub(crate) async fn before(backend: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let service =
                    service_fn(
                        move |request| async move { Ok::<_, Infallible>(pass(request, backend).await) },
                    );
                let connection = server::conn::http1::Builder::new()
                    .auto_date_header(false)
                    .half_close(true)
                    .max_buf_size(MAX_HEAD)
                    .max_headers(MAX_FIELDS)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                connections.spawn(async move {
                    // How it ended is for the client's side of the test to judge.
                    let _ = connection.await;
                });
            }
        });
        Self { address, _task: AbortOnDropHandle::new(task) }
    }
}

async fn pass(mut request: Request<Incoming>, backend: SocketAddr) -> Response<Body> {
    let ours = hyper::upgrade::on(&mut request);
    match exchange(request, backend).await {
        Ok(mut response) => {
            if response.status() == StatusCode::SWITCHING_PROTOCOLS {
                let theirs = hyper::upgrade::on(&mut response);
                tokio::spawn(tunnel(ours, theirs));
            }
            let upgrade = response.headers().get(header::UPGRADE).cloned();
            end_to_end(response.headers_mut());
            if let Some(upgrade) = upgrade.filter(|_| response.status() == StatusCode::SWITCHING_PROTOCOLS) {
                response.headers_mut().insert(header::UPGRADE, upgrade);
                response.headers_mut().insert(header::CONNECTION, "upgrade".parse().unwrap());
            }
            response.map(BodyExt::boxed)
        }
        Err(_) => {
            let body = Empty::new().map_err(|never| match never {}).boxed();
            Response::builder().status(StatusCode::BAD_GATEWAY).body(body).unwrap()
        }
    }
}

async fn exchange(
    request: Request<Incoming>,
    backend: SocketAddr,
) -> Result<Response<Incoming>, hyper::Error> {
    let stream = TcpStream::connect(backend).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (mut sender, connection) = client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection.with_upgrades());
    let (mut parts, body) = request.into_parts();
    let upgrade = if parts.version == Version::HTTP_11 { upgrade(&parts.headers) } else { Vec::new() };
    let trailers = lists(&parts.headers, header::TE, "trailers");
    end_to_end(&mut parts.headers);
    if trailers {
        parts.headers.insert(header::TE, "trailers".parse().unwrap());
        parts.headers.insert(header::CONNECTION, "te".parse().unwrap());
    }
    if !upgrade.is_empty() {
        parts.headers.insert(header::CONNECTION, "upgrade".parse().unwrap());
    }
    for protocol in upgrade {
        parts.headers.append(header::UPGRADE, protocol);
    }
    // A backend is asked in its own words, whatever the client's are.
    parts.version = Version::HTTP_11;
    if let Some(authority) = parts.uri.authority() {
        let host = authority.as_str().rsplit('@').next().unwrap_or_default();
        parts.headers.insert(header::HOST, host.parse().unwrap());
        parts.uri = parts.uri.path_and_query().cloned().unwrap_or_else(|| "/".parse().unwrap()).into();
    }
    parts.headers.entry(header::HOST).or_insert_with(|| "".parse().unwrap());
    sender.send_request(Request::from_parts(parts, body)).await
}

/// What a request wants to change to; an offer of HTTP/2 is none.
fn upgrade(headers: &HeaderMap) -> Vec<HeaderValue> {
    let wanted = lists(headers, header::CONNECTION, "upgrade") && !lists(headers, header::UPGRADE, "h2c");
    headers.get_all(header::UPGRADE).iter().filter(|_| wanted).cloned().collect()
}

fn lists(headers: &HeaderMap, name: HeaderName, word: &str) -> bool {
    headers.get_all(name).iter().any(|value| {
        let words = value.as_bytes().split(|byte| *byte == b',');
        words.map(<[u8]>::trim_ascii).any(|found| found.eq_ignore_ascii_case(word.as_bytes()))
    })
}

fn end_to_end(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|word| HeaderName::from_bytes(word.trim_ascii()).ok())
        .collect();
    for name in named.into_iter().chain(HOP_BY_HOP) {
        headers.remove(name);
    }
    for name in HOP_BY_HOP_TOO {
        headers.remove(name);
    }
}

async fn tunnel(client: OnUpgrade, backend: OnUpgrade) {
    let (Ok(client), Ok(backend)) = tokio::join!(client, backend) else { return };
    // Either side's end is the end.
    let _ = copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(backend)).await;
}
