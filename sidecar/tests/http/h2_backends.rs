//! Backends in HTTP/2, behind clients of both kinds.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crds::config::{BackendTls, Protocol};
use h2::{Reason, server};
use http::{HeaderMap, Response};
use serde_json::json;
use sidecar::net::tls::Store;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    Backend, Sidecar, Site,
    h2::{H2Backend, H2Client, send_all},
    in_time, take_down,
    tls::{Authority, Terminator, Volume, server_config},
    until,
};

/// A sidecar before backends that are asked in HTTP/2.
async fn before(backends: &[&H2Backend]) -> Sidecar {
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let site = Site::new("primary", &addresses).speaking(Protocol::Http2);
    let sidecar = Sidecar::with_sites(vec![site]);
    sidecar.ready().await;
    sidecar
}

fn body() -> Vec<u8> {
    (0..8_000_000u32).map(|index| (index * 7 % 251) as u8).collect()
}

#[tokio::test]
async fn a_request_in_http1_arrives_as_one_in_http2() {
    let backend = H2Backend::named("ok").await;
    let sidecar = before(&[&backend]).await;
    let mut client = sidecar.client().await;
    client
        .send(
            "PUT //bucket/a%2Fb%2b+c/../d?X-Amz-Signature=%2f&list&&=%20 HTTP/1.1\r\n\
             Host: Bucket.example.com:9000\r\nX-Amz-Date: 20261122T000000Z\r\n\
             Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nAccept-Encoding: identity;q=1,  gzip\r\n\
             X-Amz-Meta: b\r\nX-Amz-Meta: a\r\nKeep-Alive: 5\r\nContent-Length: 5\r\n\r\nhello",
        )
        .await;
    let response = client.receive().await.unwrap();
    assert_eq!((response.start.as_str(), response.text().as_str()), ("HTTP/1.1 200 OK", "ok"));
    let request = &backend.requests()[0];
    let uri = "http://Bucket.example.com:9000//bucket/a%2Fb%2b+c/../d?X-Amz-Signature=%2f&list&&=%20";
    assert_eq!((request.head.method().as_str(), request.head.uri().to_string().as_str()), ("PUT", uri));
    let fields = request.head.headers().iter();
    let fields: Vec<_> = fields.map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
    assert_eq!(
        fields,
        [
            ("x-amz-date", "20261122T000000Z"),
            ("accept-encoding", "identity;q=1,  gzip"),
            ("x-amz-meta", "b"),
            ("x-amz-meta", "a"),
            ("content-length", "5"),
        ]
    );
    assert_eq!(&request.body[..], b"hello");
}

#[tokio::test]
async fn chunks_and_trailers_go_both_ways() {
    let backend = H2Backend::start(|visit| async move {
        let mut asked = visit.read().await.unwrap();
        let trailers = asked.request.trailers.clone();
        let mut response = Response::new(());
        response.headers_mut().insert("x-a", "1".parse().unwrap());
        let stream = asked.respond.send_response(response, false).unwrap();
        send_all(stream, asked.request.body, trailers).await;
    })
    .await;
    let sidecar = before(&[&backend]).await;
    let mut client = sidecar.client().await;
    for _ in 0..3 {
        client
            .send(
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\nX-T: 2\r\n\r\n",
            )
            .await;
        let response = client.receive().await.unwrap();
        assert!(response.chunked);
        assert_eq!((response.text().as_str(), response.header("x-a")), ("abcde", Some("1")));
        assert_eq!(response.trailers, ["x-t: 1", "x-t: 2"]);
    }
    assert_eq!(backend.connections(), 1);
}

#[tokio::test]
async fn long_bodies_go_both_ways() {
    let backend = H2Backend::start(|visit| async move {
        let asked = visit.read().await.unwrap();
        let body = asked.request.body.clone();
        asked.answer(Response::new(()), body).await;
    })
    .await;
    let sidecar = before(&[&backend]).await;
    let mut client = sidecar.client().await;
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body().len());
    client.send(head).await;
    client.send(body()).await;
    assert!(client.receive().await.unwrap().body == body());
}

#[tokio::test]
async fn requests_share_connections_as_far_as_the_backend_allows() {
    for (allowed, expected) in [(1000, 2), (10, 16)] {
        let waiting = Arc::new(AtomicUsize::new(0));
        let shared = Arc::clone(&waiting);
        let mut builder = server::Builder::new();
        builder.max_concurrent_streams(allowed);
        let backend = H2Backend::with(&builder, move |visit| {
            let waiting = Arc::clone(&shared);
            async move {
                waiting.fetch_add(1, Ordering::Relaxed);
                until("all are there", || waiting.load(Ordering::Relaxed) >= 150).await;
                visit.read().await.unwrap().answer(Response::new(()), "ok").await;
            }
        })
        .await;
        let sidecar = before(&[&backend]).await;
        // One thread serves it all, so that the pools of two do not blur what is counted.
        let client = H2Client::connect(sidecar.address()).await;
        let asked = (0..150).map(|_| async { assert_eq!(client.get("/").await.text(), "ok") });
        in_time("all answers", futures::future::join_all(asked)).await;
        // A new connection does not know yet how many streams it may have.
        assert!((expected / 8..=expected).contains(&backend.connections()), "{}", backend.connections());
        let open = sidecar.metric("sidecar_http_backend_connections{").unwrap();
        assert!(open as usize == backend.connections());
    }
}

#[tokio::test]
async fn head_and_empty_answers_end_with_their_head() {
    let backend = H2Backend::start(|visit| async move {
        let mut asked = visit.read().await.unwrap();
        let mut response = Response::new(());
        match asked.request.head.uri().path() {
            "/head" => {
                response.headers_mut().insert("content-length", 1000.into());
            }
            "/204" => *response.status_mut() = http::StatusCode::NO_CONTENT,
            "/late" => {
                let mut body = asked.respond.send_response(response, false).unwrap();
                return body.send_data("".into(), true).unwrap();
            }
            _ => {}
        }
        asked.respond.send_response(response, true).unwrap();
    })
    .await;
    let sidecar = before(&[&backend]).await;
    let mut client = sidecar.client().await;
    for (request, status, length) in [
        ("HEAD /head", 200, Some("1000")),
        ("HEAD /late", 200, None),
        ("GET /204", 204, None),
        ("GET /", 200, Some("0")),
    ] {
        client.send(format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        let head = client.receive_head().await;
        assert_eq!((head.status(), head.header("content-length")), (status, length));
        assert!(head.header("transfer-encoding").is_none());
    }
}

#[tokio::test]
async fn a_stream_that_is_refused_goes_to_another_backend_whatever_its_method() {
    let refusing =
        H2Backend::start(|mut visit| async move { visit.respond.send_reset(Reason::REFUSED_STREAM) }).await;
    let good = H2Backend::named("good").await;
    let sidecar = before(&[&refusing, &good]).await;
    let mut client = sidecar.client().await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "good");
        client.send("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.receive().await.unwrap().text(), "good");
    }
    assert!(refusing.connections() > 0);
    let up = sidecar.metric(&format!(
        "sidecar_http_backend_up{{listener=\"test\",site=\"primary\",backend=\"{}\"",
        refusing.address
    ));
    assert_ne!(up, Some(0.0), "it is not blamed");
}

#[tokio::test]
async fn when_all_refuse_the_client_hears_so() {
    let refusing =
        H2Backend::start(|mut visit| async move { visit.respond.send_reset(Reason::REFUSED_STREAM) }).await;
    let sidecar = before(&[&refusing]).await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("refused the request"), "{}", response.text());
}

#[tokio::test]
async fn a_get_that_is_reset_is_sent_again_elsewhere_and_a_post_is_not() {
    let bad =
        H2Backend::start(|mut visit| async move { visit.respond.send_reset(Reason::INTERNAL_ERROR) }).await;
    let good = H2Backend::named("good").await;
    let sidecar = before(&[&bad, &good]).await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        assert_eq!(sidecar.get("/").await.text(), "good");
        statuses.push(sidecar.client().await.post("/", "x").await.status());
    }
    assert!(statuses.contains(&200));
    let sidecar = before(&[&bad]).await;
    let response = sidecar.client().await.post("/", "x").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("reset the stream"), "{}", response.text());
}

#[tokio::test]
async fn an_answer_that_is_reset_in_the_middle_never_ends_cleanly() {
    for reason in [Reason::INTERNAL_ERROR, Reason::CANCEL, Reason::NO_ERROR] {
        let backend = H2Backend::start(move |mut visit| async move {
            let mut stream = visit.respond.send_response(Response::new(()), false).unwrap();
            stream.send_data("abc".into(), false).unwrap();
            tokio::task::yield_now().await;
            stream.send_reset(reason);
        })
        .await;
        let sidecar = before(&[&backend]).await;
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.receive().await.unwrap_err();
    }
}

#[tokio::test]
async fn an_early_answer_ends_the_upload() {
    let backend = H2Backend::start(|visit| async move {
        let mut response = Response::new(());
        *response.status_mut() = http::StatusCode::PAYLOAD_TOO_LARGE;
        let mut respond = visit.respond;
        let stream = respond.send_response(response, false).unwrap();
        send_all(stream, "big".into(), None).await;
    })
    .await;
    let sidecar = before(&[&backend]).await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nabc").await;
    let response = client.receive().await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (413, "big"));
}

#[tokio::test]
async fn a_client_that_has_gone_takes_its_request_back() {
    let resets = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&resets);
    let backend = H2Backend::start(move |mut visit| {
        let resets = Arc::clone(&shared);
        async move {
            let reason = std::future::poll_fn(|context| visit.respond.poll_reset(context)).await.unwrap();
            assert_eq!(reason, Reason::CANCEL);
            resets.fetch_add(1, Ordering::Relaxed);
        }
    })
    .await;
    let sidecar = before(&[&backend]).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request is there", || sidecar.listener.requests() == 1).await;
    drop(client);
    until("it was taken back", || resets.load(Ordering::Relaxed) == 1).await;
}

#[tokio::test]
async fn a_backend_that_goes_away_gracefully_costs_no_request() {
    let backends = [H2Backend::going_away_after(7).await, H2Backend::going_away_after(11).await];
    let sidecar = before(&[&backends[0], &backends[1]]).await;
    let mut client = sidecar.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.text(), "ok");
        assert_eq!(client.post("/", "x").await.text(), "ok");
    }
    assert!(backends[0].connections() + backends[1].connections() > 10);
}

/// A backend that says of each request that it will not look at it, and how often it has said so.
async fn leaving() -> (SocketAddr, Arc<AtomicUsize>, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, said) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let counted = Arc::clone(&said);
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let said = Arc::clone(&counted);
            connections.spawn(async move {
                let (mut preface, mut head) = ([0; 24], [0; 9]);
                stream.read_exact(&mut preface).await.ok()?;
                stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.ok()?;
                // Up to the HEADERS of a request.
                while head[3] != 1 {
                    stream.read_exact(&mut head).await.ok()?;
                    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
                    stream.read_exact(&mut vec![0; length as usize]).await.ok()?;
                }
                said.fetch_add(1, Ordering::Relaxed);
                // GOAWAY: no stream was looked at, and nothing is wrong.
                let goodbye = [&[0, 0, 8, 7, 0, 0, 0, 0, 0][..], &[0; 8]].concat();
                stream.write_all(&goodbye).await.ok()?;
                stream.read_to_end(&mut Vec::new()).await.ok()
            });
        }
    });
    (address, said, AbortOnDropHandle::new(task))
}

#[tokio::test]
async fn a_request_that_a_leaving_backend_has_not_looked_at_goes_elsewhere_whatever_its_method() {
    let ((leaving, said, _task), good) = (leaving().await, H2Backend::named("good").await);
    let site = Site::new("primary", &[leaving, good.address]).speaking(Protocol::Http2);
    let sidecar = Sidecar::with_config(json!({"balance": "RoundRobin"}), vec![site]);
    sidecar.ready().await;
    let mut client = sidecar.client().await;
    for _ in 0..6 {
        client.send("DELETE / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.receive().await.unwrap().text(), "good");
    }
    assert!(said.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_connection_that_has_fallen_silent_gets_no_more_requests() {
    let asked = AtomicUsize::new(0);
    let stuck = H2Backend::start(move |visit| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move {
            let asked = visit.read().await.unwrap();
            if first {
                std::future::pending::<()>().await;
            }
            asked.answer(Response::new(()), "ok").await;
        }
    })
    .await;
    let good = H2Backend::named("ok").await;
    let site = Site::new("primary", &[stuck.address, good.address]).speaking(Protocol::Http2);
    let fields = json!({"balance": "RoundRobin", "timeouts": {"firstByte": "1100ms"}});
    let sidecar = Sidecar::with_config(fields, vec![site]);
    sidecar.ready().await;
    let mut client = sidecar.client().await;
    for _ in 0..8 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
    assert!(stuck.served() > 1, "it is asked again");
    assert_eq!(stuck.connections(), 2);
}

#[tokio::test]
async fn a_backend_that_is_gone_is_left_alone() {
    let (gone, good) = (Backend::named("gone").await, H2Backend::named("good").await);
    let site = Site::new("primary", &[gone.address, good.address]).speaking(Protocol::Http2);
    let sidecar = Sidecar::with_sites(vec![site]);
    sidecar.ready().await;
    take_down(gone).await;
    for _ in 0..20 {
        assert_eq!(sidecar.get("/").await.text(), "good");
    }
}

#[tokio::test]
async fn a_backend_that_speaks_http1_is_said_to() {
    let backend = Backend::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
    let site = Site::new("primary", &[backend.address]).speaking(Protocol::Http2);
    let sidecar = Sidecar::with_sites(vec![site]);
    sidecar.ready().await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("HTTP/2"), "{}", response.text());
}

#[tokio::test]
async fn within_tls_a_backend_agrees_to_http2_or_the_error_says_what_to_do() {
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]);
    let volume = Volume::of(&pair, &authority);
    let (new, old) = (H2Backend::named("new").await, Backend::named("old").await);
    let h2 = |alpn: &[&[u8]]| {
        let mut config = server_config(&pair, None);
        config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        config
    };
    let newer = Terminator::start(h2(&[b"h2", b"http/1.1"]), new.address).await;
    let older = Terminator::start(h2(&[b"http/1.1"]), old.address).await;
    let silent = Terminator::start(h2(&[]), old.address).await;
    let settings: BackendTls = volume.backend();
    for (backend, protocol, expected) in [
        (&newer, Protocol::Http2, "new"),
        (&newer, Protocol::Auto, "new"),
        (&older, Protocol::Auto, "old"),
        (&silent, Protocol::Auto, "old"),
        (&older, Protocol::Http1, "old"),
        (&silent, Protocol::Http2, "set protocol: Auto or Http1"),
        (&older, Protocol::Http2, "none of the protocols that it was offered"),
    ] {
        let client = Store::default().client(&settings).unwrap();
        let site = Site::within(client, &[backend.address]).speaking(protocol);
        let sidecar = Sidecar::with_sites(vec![site]);
        sidecar.ready().await;
        for _ in 0..3 {
            let text = sidecar.get("/").await.text();
            assert!(text.contains(expected), "{protocol:?}: {text}");
        }
    }
}

#[tokio::test]
async fn checks_speak_what_the_backend_speaks() {
    let backend = H2Backend::named("ok").await;
    let site = Site::new("primary", &[backend.address]).speaking(Protocol::Http2);
    let health = serde_json::json!({"health": {"path": "/ready", "interval": "1h"}});
    let sidecar = Sidecar::with_config(health, vec![site]);
    sidecar.ready().await;
    assert_eq!(sidecar.get("/").await.text(), "ok");
    assert_eq!(backend.requests()[0].head.uri().path(), "/ready");
}

#[tokio::test]
async fn calls_of_grpc_say_that_they_take_trailers() {
    let backend = H2Backend::start(|visit| async move {
        let mut asked = visit.read().await.unwrap();
        assert_eq!(asked.request.head.headers()["te"], "trailers");
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        let stream = asked.respond.send_response(Response::new(()), false).unwrap();
        send_all(stream, asked.request.body, Some(trailers)).await;
    })
    .await;
    let sidecar = before(&[&backend]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let mut request = crate::support::h2::post("/test.Echo/One");
    request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
    let answer = client.send(request, "message").await.unwrap();
    assert_eq!(answer.text(), "message");
    assert_eq!(answer.trailers.unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn backends_that_come_and_go_cost_no_request() {
    let backends = [H2Backend::named("ok").await, H2Backend::named("ok").await];
    let sidecar = before(&[&backends[0]]).await;
    let client = H2Client::connect(sidecar.address()).await;
    let done = std::cell::Cell::new(false);
    let asking = async {
        let loops = (0..16).map(|_| async {
            while !done.get() {
                assert_eq!(client.get("/").await.text(), "ok");
            }
        });
        futures::future::join_all(loops).await
    };
    let changing = async {
        let [first, second] = [backends[0].address, backends[1].address];
        for round in 0..30 {
            sidecar.sites[0].set([&[first][..], &[second], &[first, second]][round % 3]);
            let sent = || backends.iter().map(H2Backend::served).sum::<usize>();
            let before = sent();
            until("requests go on", || sent() > before + 40).await;
        }
        done.set(true);
    };
    in_time("all of it", async { tokio::join!(asking, changing) }).await;
    assert!(backends.iter().all(|backend| backend.served() > 0));
}
