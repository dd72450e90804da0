//! What is sent again, where to, and what a client sees of it: nothing.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{io::AsyncReadExt, sync::Notify};

use crate::support::{Backend, Sidecar, in_time, until};

const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 120\r\nContent-Length: 4\r\n\r\nbusy";
const SLOW_DOWN: &str = "HTTP/1.1 503 Slow Down\r\nRetry-After: 120\r\nContent-Length: 36\r\n\r\n\
                         <Error><Code>SlowDown</Code></Error>";

fn body() -> Vec<u8> {
    (0..1_000_000u32).map(|index| (index * 7 % 251) as u8).collect()
}

/// An object store with one object, whose first answer breaks off after `until` bytes, by a close or a reset.
async fn store(etag: &'static str, until: usize, reset: bool, resumes: &Arc<AtomicUsize>) -> Backend {
    let (broken, resumes) = (Arc::new(AtomicUsize::new(0)), Arc::clone(resumes));
    Backend::start(move |mut visit| {
        let (broken, resumes) = (Arc::clone(&broken), Arc::clone(&resumes));
        async move {
            while let Some(request) = visit.request().await {
                let object = body();
                let (status, from, extra) = match request.header("range") {
                    Some(range) => {
                        resumes.fetch_add(1, Ordering::Relaxed);
                        assert_eq!(request.header("if-match"), Some(etag));
                        let from: usize =
                            range.strip_prefix("bytes=").unwrap().split('-').next().unwrap().parse().unwrap();
                        let (last, size) = (object.len() - 1, object.len());
                        (
                            "206 Partial Content",
                            from,
                            format!("Content-Range: bytes {from}-{last}/{size}\r\n"),
                        )
                    }
                    None => ("200 OK", 0, String::new()),
                };
                let length = object.len() - from;
                visit
                    .send(format!(
                        "HTTP/1.1 {status}\r\nETag: {etag}\r\n{extra}Content-Length: {length}\r\n\r\n"
                    ))
                    .await;
                if from == 0 && broken.fetch_add(1, Ordering::Relaxed) == 0 {
                    visit.send(&object[..until]).await;
                    if reset {
                        visit.reset();
                    }
                    return;
                }
                visit.send(&object[from..]).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_gone_on_with_where_nobody_can_tell() {
    for reset in [false, true] {
        let resumes = Arc::new(AtomicUsize::new(0));
        let backends = [
            store("\"v1\"", 400_000, reset, &resumes).await,
            store("\"v1\"", 700_000, reset, &resumes).await,
        ];
        let addresses = [backends[0].address, backends[1].address];
        let sidecar = Sidecar::start(&addresses).await;
        for _ in 0..12 {
            assert!(sidecar.get("/object").await.body == body());
        }
        // A reset may take what was sent with it, so that the answer breaks off again.
        assert!(resumes.load(Ordering::Relaxed) >= 2);
    }
}

#[tokio::test]
async fn an_answer_is_gone_on_with_by_its_own_backend_where_there_is_no_other() {
    let resumes = Arc::new(AtomicUsize::new(0));
    let backend = store("\"v1\"", 400_000, false, &resumes).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    assert!(sidecar.get("/object").await.body == body());
    assert_eq!(resumes.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn an_answer_of_a_weak_version_stays_broken() {
    let resumes = Arc::new(AtomicUsize::new(0));
    let backend = store("W/\"v1\"", 400_000, false, &resumes).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut all = Vec::new();
    in_time("the end", client.reader.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(resumes.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn another_version_never_goes_on_with_an_answer() {
    let now = Arc::new(Notify::new());
    let breaks = Arc::clone(&now);
    let first = Backend::start(move |mut visit| {
        let breaks = Arc::clone(&breaks);
        async move {
            let Some(_) = visit.request().await else { return };
            visit.send("HTTP/1.1 200 OK\r\nETag: \"v1\"\r\nContent-Length: 1000\r\n\r\nabc").await;
            breaks.notified().await;
        }
    })
    .await;
    let second = Backend::answering("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n").await;
    let sidecar = Sidecar::start(&[first.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.receive_head().await;
    sidecar.sites[0].set(&[second.address]);
    sidecar.ready().await;
    // Each of the two threads takes over the new set by itself, and each has one of these.
    let mut moved = Vec::new();
    while moved.len() < 2 {
        let mut other = sidecar.client().await;
        other.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        moved.extend((other.receive_head().await.status() == 412).then_some(other));
    }
    now.notify_one();
    let mut all = Vec::new();
    in_time("the end", client.reader.read_to_end(&mut all)).await.unwrap_err();
    assert_eq!(all, b"abc");
    assert_eq!(second.requests()[2].header("range"), Some("bytes=3-999"));
}

#[tokio::test]
async fn a_get_that_cannot_be_served_here_is_served_elsewhere() {
    for status in ["502 Bad Gateway", "503 Service Unavailable", "504 Gateway Timeout"] {
        let bad = Backend::answering(format!("HTTP/1.1 {status}\r\nContent-Length: 4\r\n\r\nbusy")).await;
        let good = Backend::named("good").await;
        let sidecar = Sidecar::start(&[bad.address, good.address]).await;
        for _ in 0..20 {
            assert_eq!(sidecar.get("/").await.text(), "good");
        }
        assert!(!bad.requests().is_empty());
    }
}

#[tokio::test]
async fn when_nobody_can_serve_the_client_gets_the_last_answer_as_it_is() {
    let backends = [Backend::answering(BUSY).await, Backend::answering(BUSY).await];
    let sidecar = Sidecar::start(&[backends[0].address, backends[1].address]).await;
    let response = sidecar.get("/").await;
    assert_eq!((response.status(), response.text().as_str()), (503, "busy"));
    assert_eq!(response.header("retry-after"), Some("120"));
}

#[tokio::test]
async fn slow_down_other_errors_and_other_methods_are_never_sent_again() {
    for (request, answer) in [
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", SLOW_DOWN),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n"),
        ("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx", BUSY),
        ("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n", BUSY),
    ] {
        let backends = [Backend::answering(answer).await, Backend::answering(answer).await];
        let sidecar = Sidecar::start(&[backends[0].address, backends[1].address]).await;
        let mut client = sidecar.client().await;
        client.send(request).await;
        let expected: u16 = answer.split(' ').nth(1).unwrap().parse().unwrap();
        assert_eq!(client.receive().await.unwrap().status(), expected);
        let sent: usize = backends.iter().map(|backend| backend.requests().len()).sum();
        assert_eq!(sent, 1, "{request} {answer}");
    }
}

#[tokio::test]
async fn a_client_that_has_gone_costs_its_backend_nothing_more() {
    let backend = Backend::start(|mut visit| async move {
        let Some(_) = visit.request().await else { return };
        // The next thing that comes is the end: the sidecar has closed the connection.
        visit.head().await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request is there", || backend.requests().len() == 1).await;
    assert_eq!(sidecar.listener.requests(), 1);
    drop(client);
    until("the request has ended", || sidecar.listener.requests() == 0).await;
}

#[tokio::test]
async fn the_last_word_of_an_idle_connection_is_no_answer_to_the_request_that_meets_it() {
    const IDLE: &str = "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    let backend = Backend::start(|mut visit| async move {
        if visit.request().await.is_some() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            visit.request().await;
            visit.send(IDLE).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..4 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    // A first request that is answered so was too slow itself.
    let slow = Backend::answering(IDLE).await;
    let sidecar = Sidecar::start(&[slow.address]).await;
    assert_eq!(sidecar.get("/").await.status(), 408);
}
