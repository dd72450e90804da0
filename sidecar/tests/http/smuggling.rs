//! Messages that two readers could read in two ways. What does not fit is refused and its connection closed, before a byte of
//! it reaches a backend; what does reach a backend is one request by every reading, to the byte.

use crate::support::{Backend, Client, Recorder, Sidecar, in_time, until};

/// What is meant to reach a backend past whoever looks at requests.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A request with these lines, a body that is empty in chunks, and behind it what a reader of the length takes for its body.
fn hidden(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\n{SMUGGLED}")
}

/// Framed by chunks in an odd spelling, beside a length that says otherwise.
fn coded(coding: &str) -> String {
    hidden(&format!("Content-Length: {}\r\n{coding}\r\n", 5 + SMUGGLED.len()))
}

fn sized(length: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:{length}\r\n\r\nhello{SMUGGLED}")
}

fn headed(head: &str) -> String {
    format!("{head}\r\n\r\n{SMUGGLED}")
}

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
    for (request, status) in [
        // Both a length and chunks, in either order.
        (coded("Transfer-Encoding: chunked"), 400),
        (hidden("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400),
        // Chunks in a spelling that one reader knows and another does not.
        (coded("Transfer-Encoding:\tchunked"), 400),
        (coded("transfer-encoding: CHUNKED"), 400),
        (coded("Transfer-Encoding : chunked"), 400),
        (coded("Transfer-Encoding\t: chunked"), 400),
        (coded("Transfer-Encoding\n: chunked"), 400),
        (coded(" Transfer-Encoding: chunked"), 400),
        (coded("X: x\nTransfer-Encoding: chunked"), 400),
        (coded("X: x\rTransfer-Encoding: chunked"), 400),
        (coded("X: x\r\n\tTransfer-Encoding: chunked"), 400),
        (coded("Transfer-Encoding:\r\n chunked"), 400),
        (coded("Transfer-Encoding: \0chunked"), 400),
        (coded("Transfer-Encoding: chunked\0"), 400),
        (coded("Transfer-Encoding: \x0bchunked"), 400),
        (coded("Transfer-Encoding: chunked\x7f"), 400),
        (coded("\0Transfer-Encoding: chunked"), 400),
        (coded("Transfer-Encoding: xchunked"), 501),
        (coded("Transfer-Encoding: chunkedx"), 501),
        (coded("Transfer-Encoding: \"chunked\""), 501),
        (coded("Transfer-Encoding: 'chunked'"), 501),
        (coded("Transfer-Encoding: chunked;q=1"), 501),
        (coded("Transfer-Encoding: chunked, identity"), 501),
        (coded("Transfer-Encoding: identity, chunked"), 501),
        (coded("Transfer-Encoding: ,chunked"), 501),
        (coded("Transfer-Encoding: chunked,"), 501),
        (coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"), 501),
        (coded("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"), 501),
        (coded("Transfer-Encoding:"), 501),
        (coded("Transfer-Encoding: ch\u{fc}nked"), 501),
        (hidden("Transfer-Encoding: identity\r\n"), 501),
        (hidden("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501),
        // Lengths of which readers make different numbers.
        (sized(" 5\r\nContent-Length: 46"), 400),
        (sized(" 5\r\ncontent-length: 5"), 400),
        (sized(" 5, 5"), 400),
        (sized(" 5,46"), 400),
        (sized(" +5"), 400),
        (sized(" -5"), 400),
        (sized(" 5 6"), 400),
        (sized(" 5;"), 400),
        (sized(" 5.0"), 400),
        (sized(" 5e0"), 400),
        (sized(" 0x5"), 400),
        (sized(" \u{665}"), 400),
        (sized(" 5\x0b"), 400),
        (sized(" 5\0"), 400),
        (sized(""), 400),
        (sized(" \r\n 5"), 400),
        (sized(" 18446744073709551621"), 400),
        (sized(" 0000000000000000000005"), 400),
        (sized(" 5").replace("Content-Length:", "Content-Length :"), 400),
        (sized(" 5").replace("Content-Length:", "Content-Length\0:"), 400),
        // Lines that end elsewhere for another reader, or are none.
        (headed("GET / HTTP/1.1\nHost: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\nX: b"), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned() + SMUGGLED, 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned() + SMUGGLED, 400),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n".to_owned() + SMUGGLED, 400),
        (headed("GET / HTTP/1.1\rHost: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c"), 400),
        (headed("GET / HTTP/1.1\r\n Host: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX: b\0"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX\0: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX : b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX Y: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\n: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\n(X): b"), 400),
        // First lines that are none of this version.
        (headed("GET  / HTTP/1.1\r\nHost: a"), 400),
        (headed("GET\t/\tHTTP/1.1\r\nHost: a"), 400),
        (headed("GET / HTTP/1.1 \r\nHost: a"), 400),
        (headed("GET / /smuggled HTTP/1.1\r\nHost: a"), 400),
        (headed("GET /\0 HTTP/1.1\r\nHost: a"), 400),
        (headed("GET / HTTP/1.10\r\nHost: a"), 400),
        (headed("GET / HTTP/01.1\r\nHost: a"), 400),
        (headed("GET / http/1.1\r\nHost: a"), 400),
        (headed("GET / HTTP/1,1\r\nHost: a"), 400),
        (headed("GET / HTTP/2.0\r\nHost: a"), 400),
        (headed("GET /\r\nHost: a"), 400),
        (headed("G\u{c9}T / HTTP/1.1\r\nHost: a"), 400),
        ("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_owned() + SMUGGLED, 400),
        (headed("CONNECT a:80 HTTP/1.1\r\nHost: a:80"), 400),
        // Hosts that are two.
        (headed("GET / HTTP/1.1\r\nHost: a\r\nHost: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nhOST: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a, b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: u@b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a/b"), 400),
        (headed("GET / HTTP/1.1"), 400),
        (headed("GET http://b/ HTTP/1.1"), 400),
        (headed("GET http://b/ HTTP/1.1\r\nHost: a\r\nHost: b"), 400),
        (headed("GET http://b\\c/ HTTP/1.1\r\nHost: a"), 400),
        (headed("GET b:80 HTTP/1.1\r\nHost: a"), 400),
        (headed("GET ftp://b/ HTTP/1.1\r\nHost: a"), 400),
    ] {
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
    let long = "x".repeat(70 * 1024);
    for request in [
        format!("{long} / HTTP/1.1\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{long}: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "a=b; ".repeat(20_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: x\r\n".repeat(2_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "Connection: x\r\n".repeat(128)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(40_000)),
        // Within all bounds of size; but each name would be compared with each field.
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(129)),
        "\r\n".repeat(40_000),
    ] {
        let shown = &request[..60];
        assert_eq!(refused(&sidecar, request.as_bytes()).await, 431, "{shown:?}");
        assert!(recorder.received().is_empty(), "{shown:?}");
    }
    drop(sidecar);
    assert!(recorder.all().await.is_empty());
}

#[tokio::test]
async fn chunks_that_another_reader_would_end_elsewhere_never_end_at_the_backend() {
    for (body, reaches) in [
        // Sizes that overflow, are signed, or are none.
        ("FFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n", ""),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", ""),
        ("00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", ""),
        ("0x5\r\nhello\r\n0\r\n\r\n", ""),
        ("+5\r\nhello\r\n0\r\n\r\n", ""),
        ("-5\r\nhello\r\n0\r\n\r\n", ""),
        (" 5\r\nhello\r\n0\r\n\r\n", ""),
        ("5 \r\nhello\r\n0\r\n\r\n", ""),
        ("5\t;x\r\nhello\r\n0\r\n\r\n", ""),
        ("\r\n5\r\nhello\r\n0\r\n\r\n", ""),
        ("5_0\r\nhello\r\n0\r\n\r\n", ""),
        // Lines that end with half of an end, in extensions too.
        ("5\nhello\n0\n\n", ""),
        ("5\rXhello\r\n0\r\n\r\n", ""),
        ("5;x\nhello\r\n0\r\n\r\n", ""),
        ("2;\nxx\r\n31\r\n0\r\n\r\n", ""),
        ("5;x\rhello\r\n0\r\n\r\n", ""),
        ("5;x\0\r\nhello\r\n0\r\n\r\n", ""),
        // Data that is longer or shorter than its size, or ends with half of an end.
        ("5\r\nhelloXX\r\n0\r\n\r\n", "5\r\nhello"),
        ("5\r\nhello\n0\r\n\r\n", "5\r\nhello"),
        ("5\r\nhello0\r\n\r\n", "5\r\nhello"),
        ("5\r\nhell\r\n0\r\n\r\n", "5\r\nhell\r"),
        // Trailers that are none, or would be headers for another reader.
        ("5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n", "5\r\nhello\r\n0\r\nGET"),
        ("5\r\nhello\r\n0\r\nX: y\n\r\n", "5\r\nhello\r\n0\r\nX: y"),
        ("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", "5\r\nhello\r\n0\r\nContent-Length"),
        ("5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n", "5\r\nhello\r\n0\r\nTransfer-Encoding"),
        ("5\r\nhello\r\n0\r\nHost: b\r\n\r\n", "5\r\nhello\r\n0\r\nHost"),
        ("5\r\nhello\r\n0\r\n\n", "5\r\nhello\r\n0\r\n"),
        ("5\r\nhello\r\n0\r\n\rX", "5\r\nhello\r\n0\r\n\r"),
    ] {
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let recorder = Recorder::awaiting(usize::MAX).await;
        let sidecar = Sidecar::start(&[recorder.address]).await;
        assert_eq!(refused(&sidecar, format!("{head}{body}{SMUGGLED}").as_bytes()).await, 400, "{body:?}");
        drop(sidecar);
        let received = String::from_utf8(recorder.all().await).unwrap();
        let most = format!("{head}{reaches}");
        assert!(most.starts_with(&received), "{body:?} came as {received:?}");
    }
}

#[tokio::test]
async fn extensions_and_trailers_without_bounds_never_end_at_the_backend() {
    for body in [
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(70 * 1024)),
        format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "x".repeat(70 * 1024)),
        format!("5\r\nhello\r\n0\r\n{}\r\n", "X: x\r\n".repeat(20_000)),
    ] {
        let recorder = Recorder::awaiting(usize::MAX).await;
        let sidecar = Sidecar::start(&[recorder.address]).await;
        let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(refused(&sidecar, format!("{head}{body}{SMUGGLED}").as_bytes()).await, 400);
        drop(sidecar);
        let received = recorder.all().await;
        assert!(received.len() < 40 * 1024 && !received.ends_with(b"\r\n\r\n"), "{}", received.len());
    }
}

#[tokio::test]
async fn what_reaches_a_backend_is_one_request_to_the_byte() {
    let body = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let chunk = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
        SMUGGLED.len()
    );
    let same = |request: &str| (request.to_owned(), request.to_owned());
    for (request, expected) in [
        // A request in the body of another one is its body.
        same(&body),
        same(&body.replacen("POST", "GET", 1)),
        same(&chunk),
        // Values as they were written, where they can mean one thing alone.
        same(&chunk.replace(": chunked", ": \tCHUNKED\t ")),
        same(&body.replace("Length: ", "Length:\t0")),
        same(&chunk.replacen("\r\n\r\n25", "\r\n\r\n0025;a=\"b c\";d", 1)),
        // Fields that frame nothing, however much they look like it.
        same(&body.replacen("Host", "Transfer_Encoding: chunked\r\nHost", 1)),
        same(&body.replacen("Host", "Content_Length: 3\r\nHost", 1)),
        same(&body.replacen("Host", "X-Transfer-Encoding: chunked\r\nHost", 1)),
        // What belongs to one connection goes, and what frames the message stays.
        (body.replacen("Host", "Connection: content-length, host, close\r\nHost", 1), body.clone()),
        (chunk.replacen("Host", "Connection: Transfer-Encoding\r\nHost", 1), chunk.clone()),
        (body.replacen("Host", "Keep-Alive: 5\r\nProxy-Connection: x\r\nHost", 1), body.clone()),
        // The Host of a whole URL is the URL's.
        (body.replacen("POST /", "POST http://b/", 1), body.replacen("Host: a", "Host: b", 1)),
        (body.replacen("POST /", "POST http://u:p@b:80/", 1), body.replacen("Host: a", "Host: b:80", 1)),
        // Empty lines before a request are none of it.
        (format!("\r\n\r\n{body}"), body.clone()),
        // An offer of HTTP/2 is not passed on, nor is one of an older client to change the protocol.
        (
            body.replacen(
                "Host",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nHost",
                1,
            ),
            body.clone(),
        ),
        (body.replacen("1.1\r\nHost", "1.0\r\nConnection: upgrade\r\nUpgrade: x\r\nHost", 1), body.clone()),
    ] {
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
