//! Clients in HTTP/2, before backends in HTTP/1.1.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use h2::Reason;
use http::{HeaderMap, Request};
use tokio::{io::AsyncWriteExt, sync::Semaphore};

use crate::support::{
    Backend, Client, Sidecar,
    h2::{H2Client, get, post, read, room, send_all},
    in_time, until,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn big() -> Bytes {
    (0..8_000_000u32).map(|index| (index * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_request_in_http2_arrives_as_one_in_http1() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let request =
        Request::put("http://Bucket.example.com:9000//bucket/a%2Fb%2b+c/../d?X-Amz-Signature=%2f&list&&=%20")
            .header("x-amz-date", "20261122T000000Z")
            .header("accept-encoding", "identity;q=1,  gzip")
            .header("x-amz-meta", "b")
            .header("x-amz-meta", "a")
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .header("te", "trailers")
            .header("content-length", "5")
            .body(())
            .unwrap();
    assert_eq!(client.send(request, "hello").await.unwrap().text(), "ok");
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
            "cookie: a=1; b=2",
            "content-length: 5",
            "te: trailers",
            "connection: te",
        ]
    );
    assert_eq!(request.text(), "hello");
}

#[tokio::test]
async fn a_body_without_length_goes_on_in_chunks_with_its_trailers() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let (response, stream) = client.open(post("/")).await;
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "abc".parse().unwrap());
    in_time("sending", send_all(stream, "hello".into(), Some(trailers))).await;
    assert_eq!(in_time("an answer", response).await.unwrap().status(), 200);
    let request = &backend.requests()[0];
    assert!(request.chunked);
    assert_eq!(
        (request.text().as_str(), &request.trailers[..]),
        ("hello", &["x-checksum: abc".to_owned()][..])
    );
}

#[tokio::test]
async fn an_answer_arrives_with_its_trailers_and_without_what_is_for_one_connection() {
    let backend = Backend::answering(
        "HTTP/1.1 201 Made\r\nX-A: 1\r\nSet-Cookie: b\r\nSet-Cookie: a\r\nKeep-Alive: timeout=5\r\n\
         Connection: keep-alive, x-hop\r\nX-Hop: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
         3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nGrpc-Status: 0\r\nX-T: b\r\n\r\n",
    )
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    for _ in 0..3 {
        let answer = client.get("/").await;
        assert_eq!((answer.status(), answer.text().as_str()), (201, "abcde"));
        let fields = answer.head.headers().iter();
        let fields: Vec<_> = fields.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(fields, [("x-a", "1"), ("set-cookie", "b"), ("set-cookie", "a")]);
        let trailers = answer.trailers.unwrap();
        assert_eq!(trailers.len(), 2);
        assert!(trailers["grpc-status"] == "0" && trailers["x-t"] == "b");
    }
}

#[tokio::test]
async fn answers_without_a_body_end_with_their_head() {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n";
    for (method, answer, status, length) in [
        ("HEAD", head, 200, Some("1000")),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, None),
        ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 7\r\n\r\n", 304, Some("7")),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, Some("0")),
    ] {
        let backend = Backend::answering(answer).await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let client = H2Client::connect(sidecar.address()).await;
        for _ in 0..2 {
            let request = Request::builder().method(method).uri("http://app/").body(()).unwrap();
            let (head, body) = in_time("an answer", client.begin(request).await).await.unwrap().into_parts();
            assert_eq!(head.status, status);
            assert_eq!(head.headers.get("content-length").map(|length| length.to_str().unwrap()), length);
            assert!(in_time("the end", read(body)).await.unwrap().0.is_empty());
        }
    }
}

#[tokio::test]
async fn long_bodies_go_both_ways() {
    let backend = Backend::start(|mut visit| async move {
        while let Some(request) = visit.request().await {
            visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len())).await;
            visit.send(request.body).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    for length in [None, Some(big().len())] {
        let mut request = post("/");
        if let Some(length) = length {
            request.headers_mut().insert("content-length", length.into());
        }
        assert!(client.send(request, big()).await.unwrap().body == big());
    }
}

#[tokio::test]
async fn many_requests_at_once_share_a_connection() {
    let backend = Backend::start(|mut visit| async move {
        while let Some(request) = visit.request().await {
            let path = request.start.split(' ').nth(1).unwrap().to_owned();
            visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len())).await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let asked = (0..1000).map(|index| {
        let (client, path) = (&client, format!("/{index}"));
        async move { assert_eq!(client.get(&path).await.text(), path) }
    });
    in_time("all answers", futures::future::join_all(asked)).await;
    assert_eq!(sidecar.listener.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_reset_and_never_ended() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    ] {
        let backend = Backend::start(move |mut visit| async move {
            let Some(_) = visit.request().await else { return };
            visit.send(answer).await;
        })
        .await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let client = H2Client::connect(sidecar.address()).await;
        assert_eq!(client.fails(get("/")).await.reason(), Some(Reason::INTERNAL_ERROR));
    }
}

#[tokio::test]
async fn a_request_that_is_taken_back_costs_its_backend_nothing_more() {
    for begun in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"] {
        let backend = Backend::start(move |mut visit| async move {
            let Some(_) = visit.request().await else { return };
            visit.send(begun).await;
            // The next thing that comes is the end: the sidecar has closed the connection.
            visit.head().await;
        })
        .await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let client = H2Client::connect(sidecar.address()).await;
        let response = client.begin(get("/")).await;
        until("the request is there", || backend.requests().len() == 1).await;
        assert_eq!(sidecar.listener.requests(), 1);
        drop(response);
        until("the request has ended", || sidecar.listener.requests() == 0).await;
        assert_eq!(sidecar.listener.connections(), 1, "the connection goes on");
    }
}

#[tokio::test]
async fn a_client_that_has_gone_takes_all_its_requests_with_it() {
    let backend = Backend::start(|mut visit| async move {
        let Some(_) = visit.request().await else { return };
        visit.head().await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let mut responses = Vec::new();
    for _ in 0..20 {
        responses.push(client.begin(get("/")).await);
    }
    until("the requests are there", || sidecar.listener.requests() == 20).await;
    drop((client, responses));
    until("nothing is left", || sidecar.listener.requests() == 0 && sidecar.listener.idle()).await;
}

#[tokio::test]
async fn an_early_answer_ends_the_upload_and_nothing_else() {
    let backend = Backend::start(|mut visit| async move {
        while let Some(request) = visit.head().await {
            if request.start.starts_with("GET") {
                visit.send(OK).await;
                continue;
            }
            visit.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
            return;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let (response, mut stream) = client.open(post("/")).await;
    room(&mut stream, 3).await;
    stream.send_data("abc".into(), false).unwrap();
    let (head, body) = in_time("an answer", response).await.unwrap().into_parts();
    assert_eq!(head.status, 413);
    assert_eq!(in_time("its body", read(body)).await.unwrap().0, "big");
    let reason =
        in_time("the end of the upload", std::future::poll_fn(|context| stream.poll_reset(context))).await;
    assert_eq!(reason.unwrap(), Reason::NO_ERROR);
    assert_eq!(client.get("/").await.text(), "ok", "the connection goes on");
}

#[tokio::test]
async fn leave_to_send_a_body_is_passed_on() {
    let backend = Backend::start(|mut visit| async move {
        let Some(_) = visit.head().await else { return };
        visit.send("HTTP/1.1 100 Continue\r\n\r\n").await;
        let mut body = [0; 5];
        tokio::io::AsyncReadExt::read_exact(&mut visit.reader, &mut body).await.unwrap();
        visit.send("HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n").await;
        visit.send(OK).await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let mut request = post("/");
    request.headers_mut().insert("expect", "100-continue".parse().unwrap());
    request.headers_mut().insert("content-length", 5.into());
    let (mut response, stream) = client.open(request).await;
    let mut interim = async || {
        let polled = std::future::poll_fn(|context| response.poll_informational(context));
        in_time("an interim answer", polled).await.unwrap().unwrap().status()
    };
    assert_eq!(interim().await, 100);
    in_time("sending", send_all(stream, "hello".into(), None)).await;
    assert_eq!(interim().await, 103);
    assert_eq!(in_time("an answer", response).await.unwrap().status(), 200);
}

#[tokio::test]
async fn a_drain_answers_what_is_under_way_and_then_ends() {
    // One answer for the client that is idle then; the others wait until the drain has begun.
    let leave = Arc::new(Semaphore::new(1));
    let answers = Arc::clone(&leave);
    let backend = Backend::start(move |mut visit| {
        let answers = Arc::clone(&answers);
        async move {
            while visit.request().await.is_some() {
                answers.acquire().await.unwrap().forget();
                visit.send(OK).await;
            }
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let idle = H2Client::connect(sidecar.address()).await;
    idle.get("/").await;
    let mut responses = Vec::new();
    for _ in 0..50 {
        responses.push(client.begin(get("/")).await);
    }
    until("the requests are there", || sidecar.listener.requests() == responses.len()).await;
    let (listener, _workers) = sidecar.into_parts();
    let draining = tokio::spawn(listener.drain(Duration::from_secs(15)));
    in_time("the end of the idle connection", idle.ended()).await.unwrap();
    // Only now has the drain reached those that are under way: they may be another thread's.
    client.is_sent_away().await;
    leave.add_permits(responses.len());
    for response in responses {
        let (head, body) = in_time("an answer", response).await.unwrap().into_parts();
        assert_eq!(
            (head.status.as_u16(), &in_time("a body", read(body)).await.unwrap().0[..]),
            (200, &b"ok"[..])
        );
    }
    in_time("the drain", draining).await.unwrap();
    client.ended().await.unwrap();
}

#[tokio::test]
async fn requests_that_are_taken_back_without_end_close_the_connection() {
    let backend = Backend::start(|mut visit| async move {
        let Some(_) = visit.request().await else { return };
        visit.head().await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let attack = async {
        for _ in 0..100_000 {
            let Ok(mut sender) = client.sender.clone().ready().await else { return };
            let Ok((response, _)) = sender.send_request(get("/"), true) else { return };
            drop(response);
            tokio::task::yield_now().await;
        }
        panic!("nobody minds");
    };
    in_time("the end of it", attack).await;
    let error = client.ended().await.unwrap_err();
    // The reset of a connection with unread bytes may overtake what it says.
    assert!(error.is_io() || error.reason() == Some(Reason::ENHANCE_YOUR_CALM), "{error}");
    until("nothing is left", || sidecar.listener.requests() == 0 && sidecar.listener.idle()).await;
}

#[tokio::test]
async fn nor_may_requests_be_taken_back_without_end_that_were_under_way() {
    let backend = Backend::start(|mut visit| async move {
        let Some(_) = visit.request().await else { return };
        visit.head().await;
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let client = H2Client::connect(sidecar.address()).await;
    until("the connection is there", || !sidecar.listener.idle()).await;
    let attack = async {
        for _ in 0..20 {
            let mut responses = Vec::new();
            for _ in 0..50 {
                let Ok(mut sender) = client.sender.clone().ready().await else { return };
                let Ok((response, _)) = sender.send_request(get("/"), true) else { return };
                responses.push(response);
            }
            until("they are under way", || sidecar.listener.requests() == 50 || sidecar.listener.idle())
                .await;
            drop(responses);
            until("they are taken back", || sidecar.listener.requests() == 0).await;
            if sidecar.listener.idle() {
                return;
            }
        }
        panic!("nobody minds");
    };
    in_time("the end of it", attack).await;
    let error = client.ended().await.unwrap_err();
    assert!(error.is_io() || error.reason() == Some(Reason::ENHANCE_YOUR_CALM), "{error}");
}

#[tokio::test]
async fn a_first_request_that_begins_like_a_preface_is_none() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    for start in ["POST", "PUT", "PRI", "PRIVATE", "PR"] {
        let mut client = Client::connect(sidecar.address()).await;
        for byte in start.bytes() {
            client.send([byte]).await;
            client.writer.flush().await.unwrap();
        }
        client.send(" / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.receive().await.unwrap().text(), "ok");
    }
}

#[tokio::test]
async fn when_no_backend_is_there_a_client_of_grpc_hears_so_in_its_terms() {
    let sidecar = Sidecar::start(&[]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let mut request = post("/");
    request.headers_mut().insert("content-type", "application/grpc+proto".parse().unwrap());
    let answer = client.send(request, "x").await.unwrap();
    assert_eq!((answer.status(), answer.header("grpc-status")), (200, Some("14")));
    assert!(answer.header("grpc-message").unwrap().contains("has no live backend"));
    assert_eq!(client.send(post("/"), "x").await.unwrap().status(), 503);
}
