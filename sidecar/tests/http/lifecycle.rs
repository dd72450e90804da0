//! Opening, streaming, draining.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::Registry;
use sidecar::{
    balance::BackendSet,
    http::{Listener, Metrics, Parts},
    net::Workers,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};

use crate::support::{
    Backend, Sidecar, Site,
    h2::{H2Client, get, read},
    in_time, listener, until,
};

const SIZE: usize = 64 << 20;

/// A backend that says when a request has come, and answers when it is told to.
async fn waiting() -> (Backend, Arc<Notify>) {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let backend = Backend::start(move |mut visit| {
        let told = Arc::clone(&told);
        async move {
            while visit.request().await.is_some() {
                told.notified().await;
                visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            }
        }
    })
    .await;
    (backend, go)
}

#[tokio::test]
async fn a_drain_finishes_what_was_begun_and_takes_nothing_new() {
    let (backend, go) = waiting().await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let address = sidecar.address();
    let (mut busy, mut idle) = (sidecar.client().await, sidecar.client().await);
    idle.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    go.notify_one();
    assert_eq!(idle.receive().await.unwrap().text(), "ok");
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request is there", || backend.requests().len() == 2).await;
    let (listener, _rest) = sidecar.into_parts();
    let drain = tokio::spawn(listener.drain(Duration::from_secs(30)));
    in_time("the idle connection is closed", idle.is_closed()).await;
    until("nothing listens", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(!drain.is_finished());
    go.notify_one();
    let response = busy.receive().await.unwrap();
    assert_eq!((response.text().as_str(), response.header("connection")), ("ok", Some("close")));
    assert!(busy.is_closed().await);
    in_time("the drain", drain).await.unwrap();
}

#[tokio::test]
async fn a_drain_cuts_off_what_takes_too_long() {
    let (backend, _go) = waiting().await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request is there", || backend.requests().len() == 1).await;
    let (listener, _rest) = sidecar.into_parts();
    in_time("the drain", listener.drain(Duration::from_millis(50))).await;
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_answer_that_a_drain_cuts_off_never_ends_cleanly() {
    let backend = Backend::start(|mut visit| async move {
        // A check of the sidecar brings no request.
        let Some(_) = visit.request().await else { return };
        visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").await;
        std::future::pending::<()>().await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    client.receive_head().await;
    client.reader.read_exact(&mut [0; 3]).await.unwrap();
    let (listener, _rest) = sidecar.into_parts();
    in_time("the drain", listener.drain(Duration::from_millis(50))).await;
    let mut rest = Vec::new();
    let ended = in_time("the end", client.reader.read_to_end(&mut rest)).await;
    assert!(ended.is_err(), "ended cleanly after {rest:?}");
}

#[tokio::test]
async fn connections_are_counted_until_they_have_gone() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    assert!(sidecar.listener.idle());
    let mut client = sidecar.client().await;
    client.get("/").await;
    assert_eq!((sidecar.listener.connections(), sidecar.listener.requests()), (1, 0));
    drop(client);
    until("the connection is gone", || sidecar.listener.idle()).await;
}

#[tokio::test]
async fn a_listener_says_when_all_its_sets_have_answered() {
    let site = Site::new("primary", &[]);
    site.send(BackendSet::default());
    let sidecar = Sidecar::with_sites(vec![site]);
    let mut answered = sidecar.listener.answered();
    assert!(!*answered.borrow_and_update());
    assert!(sidecar.get("/").await.text().contains("site primary: its backends are not known yet"));
    sidecar.sites[0].set(&[]);
    in_time("the answer", answered.wait_for(|answered| *answered)).await.unwrap();
}

#[tokio::test]
async fn an_address_in_use_names_the_listener_and_the_remedy() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = listener("minio", taken.local_addr().unwrap().port(), serde_json::json!({}));
    let workers = Workers::start(1).unwrap();
    let metrics = Metrics::register(&mut Registry::default());
    let error = Listener::open(&config, Parts::default(), &workers, metrics).err().unwrap().to_string();
    assert!(error.starts_with("listener minio cannot listen on 127.0.0.1:"), "{error}");
    assert!(error.ends_with("choose another port, or stop what uses it"), "{error}");
}

/// Writes until the other side takes no more for a second, and counts.
async fn fill(writer: &mut (impl AsyncWriteExt + Unpin), written: &AtomicUsize) {
    let block = vec![7; 1 << 16];
    while written.load(Ordering::Relaxed) < SIZE {
        match timeout(Duration::from_secs(1), writer.write(&block)).await {
            Ok(Ok(count)) => written.fetch_add(count, Ordering::Relaxed),
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => return,
        };
    }
}

/// A backend with a long answer, which says when nobody takes any more of it.
struct Writing {
    backend: Backend,
    written: Arc<AtomicUsize>,
    stopped: Arc<Notify>,
}

impl Writing {
    async fn start() -> Self {
        let (written, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
        let shared = (Arc::clone(&written), Arc::clone(&stopped));
        let backend = Backend::start(move |mut visit| {
            let (written, stopped) = shared.clone();
            async move {
                visit.request().await;
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
                fill(&mut visit.writer, &written).await;
                stopped.notify_one();
                visit.send(&vec![7; SIZE - written.load(Ordering::Relaxed)]).await;
            }
        })
        .await;
        Self { backend, written, stopped }
    }

    async fn stands_still(&self) {
        in_time("the backend stands still", self.stopped.notified()).await;
        let written = self.written.load(Ordering::Relaxed);
        assert!(written < SIZE / 2, "the proxy took {written} bytes that nobody reads");
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_backend() {
    let writing = Writing::start().await;
    let sidecar = Sidecar::start(&[writing.backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    writing.stands_still().await;
    client.receive_head().await;
    let mut body = vec![0; SIZE];
    in_time("reading", client.reader.read_exact(&mut body)).await.unwrap();
    assert!(body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_client_in_http2_that_does_not_read_stops_the_backend() {
    let writing = Writing::start().await;
    let sidecar = Sidecar::start(&[writing.backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let response = client.begin(get("/")).await;
    writing.stands_still().await;
    let body = in_time("an answer", response).await.unwrap().into_body();
    let (body, _) = in_time("reading", read(body)).await.unwrap();
    assert!(body.len() == SIZE && body.iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_backend_that_does_not_read_stops_the_client() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let backend = Backend::start(move |mut visit| {
        let told = Arc::clone(&told);
        async move {
            // A check of the sidecar brings no request.
            let Some(_) = visit.head().await else { return };
            told.notified().await;
            let mut body = vec![0; 1 << 20];
            let mut total = 0;
            while total < SIZE {
                total += visit.reader.read(&mut body).await.unwrap();
            }
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut stream = TcpStream::connect(sidecar.address()).await.unwrap();
    stream
        .write_all(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let written = AtomicUsize::new(0);
    fill(&mut stream, &written).await;
    let stopped_at = written.load(Ordering::Relaxed);
    assert!(stopped_at < SIZE / 2, "the proxy took {stopped_at} bytes that nobody reads");
    go.notify_one();
    in_time("the rest", stream.write_all(&vec![7; SIZE - stopped_at])).await.unwrap();
    let mut answer = vec![0; 64];
    let count = in_time("the answer", stream.read(&mut answer)).await.unwrap();
    assert!(answer[..count].starts_with(b"HTTP/1.1 200 OK"));
}
