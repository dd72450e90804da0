//! Bodies of every framing and size arrive whole, and a body cut short never looks whole.

use sidecar::net::pipe::Pipe;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Backend, Sidecar, in_time};

/// Long enough for the pipe, and no multiple of anything.
const LONG: usize = 3 * 1024 * 1024 + 17;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|index| (index * 31 % 251) as u8).collect()
}

fn with_length(body: &[u8]) -> Vec<u8> {
    let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}

#[tokio::test]
async fn long_bodies_arrive_whole_both_ways_and_connections_are_used_again() {
    let backend = Backend::answering(with_length(&pattern(LONG))).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for length in [LONG, 1, 300_000, LONG] {
        let mut request =
            format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n").into_bytes();
        request.extend_from_slice(&pattern(length));
        client.send(request).await;
        assert!(client.receive().await.unwrap().body == pattern(LONG));
        assert!(backend.requests().last().unwrap().body == pattern(length), "{length} bytes");
    }
    assert_eq!(backend.connections(), 1);
    let labels = format!("listener=\"test\",site=\"primary\",backend=\"{}\"", backend.address);
    let metric = |name: &str| sidecar.metric(&format!("{name}{{{labels}}}"));
    assert_eq!(metric("sidecar_http_received_bytes_total"), Some((4 * LONG) as f64));
    assert_eq!(metric("sidecar_http_sent_bytes_total"), Some((2 * LONG + 300_001) as f64));
}

#[tokio::test]
async fn long_bodies_arrive_whole_where_no_pipe_is_left() {
    let backend = Backend::answering(with_length(&pattern(LONG))).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    let mut request = format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {LONG}\r\n\r\n").into_bytes();
    request.extend_from_slice(&pattern(LONG));
    // All that the process may have. Other tests copy as long as this one holds them.
    let _pipes: Vec<_> = std::iter::from_fn(Pipe::take).collect();
    for _ in 0..2 {
        client.send(&request).await;
        assert!(client.receive().await.unwrap().body == pattern(LONG));
        assert!(backend.requests().last().unwrap().body == pattern(LONG));
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn long_chunked_bodies_arrive_whole_both_ways() {
    let chunks: Vec<u8> = pattern(LONG)
        .chunks(77_777)
        .flat_map(|chunk| [format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat())
        .chain(*b"0\r\n\r\n")
        .collect();
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let backend = Backend::answering([head.as_bytes(), &chunks].concat()).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        client.send(&chunks).await;
        assert!(client.receive().await.unwrap().body == pattern(LONG));
        assert!(backend.requests().last().unwrap().body == pattern(LONG));
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_know_chunks_gets_none() {
    let backend = Backend::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nx-sum: 7\r\n\r\n",
    )
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = client.receive_head().await;
    assert_eq!((head.header("transfer-encoding"), head.header("connection")), (None, Some("close")));
    let mut body = String::new();
    in_time("the body", client.reader.read_to_string(&mut body)).await.unwrap();
    assert_eq!(body, "abcde");
}

#[tokio::test]
async fn an_old_client_may_keep_its_connection() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let response = client.receive().await.unwrap();
        assert_eq!((response.text().as_str(), response.header("connection")), ("a", Some("keep-alive")));
    }
}

#[tokio::test]
async fn a_body_that_ends_with_its_connection_is_passed_on_with_an_end() {
    let backend = Backend::start(|mut visit| async move {
        let Some(_) = visit.request().await else { return };
        visit.send("HTTP/1.0 200 OK\r\n\r\nabc").await;
        visit.send("de").await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        let response = client.get("/").await;
        assert!(response.chunked);
        assert_eq!(response.text(), "abcde");
    }
}

#[tokio::test]
async fn a_body_cut_short_never_ends_cleanly() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n0\r\n\r\n",
    ] {
        let backend = Backend::start(move |mut visit| async move {
            let Some(_) = visit.request().await else { return };
            visit.send(answer).await;
        })
        .await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        for version in ["1.1", "1.0"] {
            let mut client = sidecar.client().await;
            client.send(format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n")).await;
            let mut all = Vec::new();
            let ended = in_time("the end", client.reader.read_to_end(&mut all)).await;
            assert!(ended.is_err(), "{answer:?} ended cleanly: {:?}", String::from_utf8_lossy(&all));
        }
    }
}

#[tokio::test]
async fn a_connection_that_was_sent_more_than_an_answer_is_not_used_again() {
    let backend = Backend::start(|mut visit| async move {
        while visit.request().await.is_some() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil").await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert_eq!(backend.connections(), 3);
}

#[tokio::test]
async fn an_answer_before_the_end_of_an_upload_reaches_a_client_that_is_still_sending() {
    let backend = Backend::start(|mut visit| async move {
        visit.head().await.unwrap();
        visit.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno").await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4000000\r\n\r\n").await;
    // The rest may meet a connection that is closed already.
    let _ = client.writer.write_all(&pattern(4_000_000)).await;
    let response = client.receive().await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (403, "no"));
}

#[tokio::test]
async fn both_bodies_may_go_at_once() {
    let backend = Backend::start(|mut visit| async move {
        visit.head().await.unwrap();
        visit.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n").await;
        for _ in 0..3 {
            let mut two = [0; 2];
            visit.reader.read_exact(&mut two).await.unwrap();
            visit.send(two).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n").await;
    client.receive_head().await;
    for part in ["ab", "cd", "ef"] {
        client.send(part).await;
        let mut echo = [0; 2];
        in_time("the echo", client.reader.read_exact(&mut echo)).await.unwrap();
        assert_eq!(echo, part.as_bytes());
    }
}

#[tokio::test]
async fn interim_answers_come_before_the_real_one() {
    let backend = Backend::answering(
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.receive_head().await.status(), 102);
        assert_eq!(client.receive_head().await.header("link"), Some("</a>"));
        assert_eq!(client.receive().await.unwrap().text(), "ok");
    }
    let mut old = sidecar.client().await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(old.receive().await.unwrap().text(), "ok", "interim answers are unknown to HTTP/1.0");
}
