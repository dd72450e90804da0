//! Messages arrive as they were sent.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::Semaphore,
};

use crate::support::{Backend, Sidecar, in_time, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client
        .send(
            "PUT //bucket/a%2Fb%2b+c/../d?X-Amz-Signature=%2f&list&&=%20 HTTP/1.1\r\n\
             Host: Bucket.example.com:9000\r\n\
             X-Amz-Date: 20261122T000000Z\r\n\
             Connection: keep-alive, X-Hop\r\n\
             X-Hop: 1\r\n\
             Accept-Encoding: identity;q=1,  gzip\r\n\
             X-Amz-Meta: b\r\n\
             X-Amz-Meta: a\r\n\
             Content-Encoding: aws-chunked\r\n\
             X-Amz-Decoded-Content-Length: 3\r\n\
             Content-Length: 5\r\n\r\nhello",
        )
        .await;
    assert_eq!(client.receive().await.unwrap().text(), "ok");
    let request = &backend.requests()[0];
    assert_eq!(request.start, "PUT //bucket/a%2Fb%2b+c/../d?X-Amz-Signature=%2f&list&&=%20 HTTP/1.1");
    assert_eq!(
        request.headers,
        [
            "host: Bucket.example.com:9000",
            "x-amz-date: 20261122T000000Z",
            "accept-encoding: identity;q=1,  gzip",
            "x-amz-meta: b",
            "x-amz-meta: a",
            "content-encoding: aws-chunked",
            "x-amz-decoded-content-length: 3",
            "content-length: 5",
        ]
    );
    assert_eq!(request.text(), "hello");
}

#[tokio::test]
async fn a_response_arrives_as_it_was_sent() {
    let backend = Backend::answering(
        "HTTP/1.1 206 Partial Content\r\nContent-Encoding: gzip\r\nETag: \"a\"\r\nSet-Cookie: b\r\nSet-Cookie: a\r\n\
         Keep-Alive: timeout=5\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n\x1f\x0b\x08",
    )
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let response = sidecar.get("/").await;
    assert_eq!(response.start, "HTTP/1.1 206 Partial Content");
    assert_eq!(
        response.headers,
        ["content-encoding: gzip", "etag: \"a\"", "set-cookie: b", "set-cookie: a", "content-length: 3"]
    );
    assert_eq!(response.body, b"\x1f\x0b\x08");
}

#[tokio::test]
async fn chunks_stay_chunks_and_keep_their_trailers() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n\
                 Trailer: x-md5\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\nx-md5: 9\r\n\r\n",
            )
            .await;
        let response = client.receive().await.unwrap();
        assert!(response.chunked);
        assert_eq!((response.text().as_str(), response.trailers), ("abc", vec!["x-sum: 7".to_owned()]));
        let request = &backend.requests()[0];
        assert!(request.chunked);
        assert_eq!((request.text().as_str(), &request.trailers), ("hello", &vec!["x-md5: 9".to_owned()]));
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn responses_without_body_keep_the_connection() {
    for (method, answer) in [
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nETag: \"a\"\r\n\r\n"),
        ("GET", "HTTP/1.1 204 No Content\r\nETag: \"a\"\r\n\r\n"),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n"),
    ] {
        let backend = Backend::answering(answer).await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let mut client = sidecar.client().await;
        for _ in 0..3 {
            client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
            let response = client.receive_head().await;
            let expected: Vec<_> = answer.trim_end().split("\r\n").map(str::to_ascii_lowercase).collect();
            assert_eq!(response.headers, expected[1..], "{method}");
        }
        assert!(backend.requests().iter().all(|request| request.start.starts_with(method)));
        assert_eq!(backend.connections(), 1);
    }
}

#[tokio::test]
async fn requests_of_one_client_share_a_connection_to_the_backend() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..50 {
        assert_eq!(client.get("/").await.text(), "a");
        assert_eq!(client.post("/", "x").await.text(), "a");
    }
    assert_eq!((backend.connections(), backend.requests().len()), (1, 100));
}

#[tokio::test]
async fn of_idle_connections_the_last_one_used_is_used_first() {
    let (leave, visits) = (Arc::new(Semaphore::new(0)), AtomicUsize::new(0));
    let answers = Arc::clone(&leave);
    let backend = Backend::start(move |mut visit| {
        let (answers, name) = (Arc::clone(&answers), visits.fetch_add(1, Ordering::Relaxed));
        async move {
            while visit.request().await.is_some() {
                answers.acquire().await.unwrap().forget();
                let length = name.to_string().len();
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}")).await;
            }
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    // The first and the third are on one thread, which has its own connections.
    let mut clients = Vec::new();
    for count in 1..=3 {
        clients.push(sidecar.client().await);
        until("the connection", || sidecar.listener.connections() == count).await;
    }
    let (mut third, mut first) = (clients.pop().unwrap(), clients.swap_remove(0));
    for (count, client) in [(1, &mut first), (2, &mut third)] {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        until("the request is there", || backend.requests().len() == count).await;
    }
    // In the order in which they came.
    leave.add_permits(1);
    let early = first.receive().await.unwrap().text();
    leave.add_permits(100);
    let last = third.receive().await.unwrap().text();
    assert_ne!(early, last);
    for _ in 0..5 {
        assert_eq!(first.get("/").await.text(), last);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::start(|mut visit| async move {
        while let Some(request) = visit.request().await {
            let path = request.start.split(' ').nth(1).unwrap().to_owned();
            visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    let requests: String = (0..10).map(|index| format!("GET /{index} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(requests).await;
    for index in 0..10 {
        assert_eq!(client.receive().await.unwrap().text(), format!("/{index}"));
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    for header in ["x: 1\r\n".repeat(500), format!("x: {}\r\n", "1".repeat(100_000))] {
        let mut client = sidecar.client().await;
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{header}\r\n")).await;
        assert_eq!(client.receive_head().await.status(), 431);
    }
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn what_cannot_be_forwarded_is_refused_with_the_reason() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    for (request, reason) in [
        ("GET / HTTP/1.1\r\n\r\n", "one Host header"),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "one Host header"),
        ("GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "must be a path or a whole URL"),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT is not supported"),
    ] {
        let mut client = sidecar.client().await;
        client.send(request).await;
        let response = client.receive().await.unwrap();
        assert_eq!(response.status(), 400, "{request}");
        assert!(response.text().contains(reason), "{}", response.text());
    }
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn an_expected_continue_comes_from_the_backend() {
    let backend = Backend::start(|mut visit| async move {
        visit.head().await.unwrap();
        visit.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let mut body = [0; 5];
        visit.reader.read_exact(&mut body).await.unwrap();
        assert_eq!(&body, b"hello");
        visit.send(OK).await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.receive_head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.receive().await.unwrap().text(), "ok");
}

#[tokio::test]
async fn a_backend_that_knows_no_continue_gets_the_body_after_a_moment() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert_eq!(client.receive_head().await.status(), 100);
    client.send("hello").await;
    assert_eq!(client.receive().await.unwrap().text(), "a");
    assert_eq!(backend.requests()[0].body, b"hello");
}

#[tokio::test]
async fn a_refused_upload_is_never_asked_for() {
    let backend = Backend::start(|mut visit| async move {
        visit.head().await.unwrap();
        visit.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    let response = client.receive().await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways() {
    let backend = Backend::start(|mut visit| async move {
        let request = visit.request().await.unwrap();
        assert_eq!(request.header("upgrade"), Some("echo"));
        visit
            .send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi")
            .await;
        tokio::io::copy(&mut visit.reader, &mut visit.writer).await.ok();
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    let response = client.receive_head().await;
    assert_eq!((response.status(), response.header("upgrade")), (101, Some("echo")));
    client.send("ping").await;
    let mut bytes = [0; 6];
    in_time("the echo", client.reader.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"hiping");
    client.writer.shutdown().await.unwrap();
    assert!(client.is_closed().await);
}
