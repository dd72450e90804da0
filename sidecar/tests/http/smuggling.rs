//! Messages that two readers could read in two ways. What does not fit is refused and its connection closed, before a byte of
//! it reaches a backend; what does reach a backend is one request by every reading, to the byte.

#[path = "../smuggling/corpus.rs"]
pub(crate) mod corpus;

use corpus::{CHUNKED, SMUGGLED, ambiguous, boundless, coded, endless, harmless, headed, sized, torn};

use crate::support::{Backend, Client, Recorder, Sidecar, in_time, until};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Sends it and gives the status of the answer, after which the connection has ended.
async fn refused(sidecar: &Sidecar, request: &[u8]) -> u16 {
    let mut client = sidecar.client().await;
    client.send(request).await;
    let status = client.receive_head().await.status();
    in_time("the end of the connection", rest(&mut client)).await;
    status
}

/// The bytes up to the end of a connection.
async fn rest(client: &mut Client) -> Vec<u8> {
    use tokio::io::AsyncReadExt;
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = client.reader.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_before_a_backend_sees_any_of_it() {
    let recorder = Recorder::awaiting(usize::MAX).await;
    let sidecar = Sidecar::start(&[recorder.address]).await;
    for (request, status) in ambiguous() {
        assert_eq!(refused(&sidecar, request.as_bytes()).await, status, "{request:?}");
        assert!(recorder.received().is_empty(), "{request:?}");
    }
    drop(sidecar);
    assert!(recorder.all().await.is_empty());
}

#[tokio::test]
async fn a_head_without_bounds_is_refused_before_a_backend_sees_any_of_it() {
    let recorder = Recorder::awaiting(usize::MAX).await;
    let sidecar = Sidecar::start(&[recorder.address]).await;
    for request in boundless() {
        let shown = &request[..60];
        assert_eq!(refused(&sidecar, request.as_bytes()).await, 431, "{shown:?}");
        assert!(recorder.received().is_empty(), "{shown:?}");
    }
    drop(sidecar);
    assert!(recorder.all().await.is_empty());
}

#[tokio::test]
async fn chunks_that_another_reader_would_end_elsewhere_never_end_at_the_backend() {
    for (body, reaches) in torn() {
        let recorder = Recorder::awaiting(usize::MAX).await;
        let sidecar = Sidecar::start(&[recorder.address]).await;
        assert_eq!(refused(&sidecar, format!("{CHUNKED}{body}{SMUGGLED}").as_bytes()).await, 400, "{body:?}");
        drop(sidecar);
        let received = String::from_utf8(recorder.all().await).unwrap();
        let most = format!("{CHUNKED}{reaches}");
        assert!(most.starts_with(&received), "{body:?} came as {received:?}");
    }
}

#[tokio::test]
async fn extensions_and_trailers_without_bounds_never_end_at_the_backend() {
    for body in endless() {
        let recorder = Recorder::awaiting(usize::MAX).await;
        let sidecar = Sidecar::start(&[recorder.address]).await;
        assert_eq!(refused(&sidecar, format!("{CHUNKED}{body}{SMUGGLED}").as_bytes()).await, 400);
        drop(sidecar);
        let received = recorder.all().await;
        assert!(received.len() < 40 * 1024 && !received.ends_with(b"\r\n\r\n"), "{}", received.len());
    }
}

#[tokio::test]
async fn what_reaches_a_backend_is_one_request_to_the_byte() {
    for (request, expected) in harmless() {
        let recorder = Recorder::awaiting(expected.len()).await;
        let sidecar = Sidecar::start(&[recorder.address]).await;
        let mut client = sidecar.client().await;
        client.send(&request).await;
        assert_eq!(client.receive().await.unwrap().text(), "ok", "{request:?}");
        drop((client, sidecar));
        assert_eq!(String::from_utf8(recorder.all().await).unwrap(), expected, "{request:?}");
    }
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_read_as_one_that_comes_at_once() {
    let recorder = Recorder::awaiting(usize::MAX).await;
    let sidecar = Sidecar::start(&[recorder.address]).await;
    for request in [
        coded("Transfer-Encoding: chunked"),
        sized(" 5\r\nContent-Length: 46"),
        headed("GET / HTTP/1.1\nHost: a"),
    ] {
        let mut client = sidecar.client().await;
        let mut sent = 0;
        // It may be refused before its end, after which nothing can be sent.
        while sent < request.len() && client.try_send(&request.as_bytes()[sent..=sent]).await {
            sent += 1;
        }
        assert_eq!(client.receive_head().await.status(), 400, "{request:?}");
    }
    drop(sidecar);
    assert!(recorder.all().await.is_empty());
}

#[tokio::test]
async fn what_a_backend_sends_beside_its_answer_reaches_nobody() {
    let poison = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\npoisoned";
    for (method, answer) in [
        ("GET", ANSWER.to_owned() + poison),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n".to_owned() + poison),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n".to_owned() + poison),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 54\r\n\r\n".to_owned() + poison),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned() + poison),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned() + poison),
    ] {
        let backend = Backend::answering(answer.clone()).await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let (mut first, mut other) = (sidecar.client().await, sidecar.client().await);
        for _ in 0..3 {
            for client in [&mut first, &mut other] {
                client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n")).await;
                let head = client.receive_head().await;
                assert_ne!(head.header("content-length"), Some("8"), "{answer:?}");
                if method == "GET" && head.status() == 200 {
                    client.skip_body(head).await;
                }
            }
        }
        until("no poisoned connection is left", || {
            sidecar.metric("sidecar_http_backend_connections{").is_some_and(|open| open == 0.0)
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_that_can_be_read_in_two_ways_is_not_passed_on() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2, 60\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\nX: y\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 60\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\nok",
    ] {
        let backend = Backend::answering(answer).await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let mut client = sidecar.client().await;
        let response = client.post("/", "x").await;
        assert_eq!(response.status(), 502, "{answer:?}");
        assert_eq!(backend.requests().len(), 1, "{answer:?}");
    }
}

#[tokio::test]
async fn a_request_behind_a_refused_one_is_not_served() {
    let backend = Backend::answering(ANSWER).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client
        .send(format!("GET /good HTTP/1.1\r\nHost: a\r\n\r\n{}", coded("Transfer-Encoding: chunked")))
        .await;
    assert_eq!(client.receive().await.unwrap().status(), 200);
    assert_eq!(client.receive_head().await.status(), 400);
    let rest = in_time("the end", rest(&mut client)).await;
    assert!(!String::from_utf8_lossy(&rest).contains("HTTP/1.1"), "{rest:?}");
    let served: Vec<_> = backend.requests().iter().map(|request| request.start.clone()).collect();
    assert_eq!(served, ["GET /good HTTP/1.1"]);
}
