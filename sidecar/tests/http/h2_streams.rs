//! HTTP/2 on both sides: both directions of a stream flow at once, and each ends by itself.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use bytes::Bytes;
use crds::config::Protocol;
use h2::Reason;
use http::{HeaderMap, Response};

use crate::support::{
    Sidecar, Site,
    h2::{H2Backend, H2Client, get, post, read, room, send_all},
    in_time, until,
};

async fn before(backend: &H2Backend) -> (Sidecar, H2Client) {
    let site = Site::new("primary", &[backend.address]).speaking(Protocol::Http2);
    let sidecar = Sidecar::with_sites(vec![site]);
    sidecar.ready().await;
    let client = H2Client::connect(sidecar.address()).await;
    (sidecar, client)
}

/// Sends back each piece as it comes, and trailers when the other side has ended.
async fn echo() -> H2Backend {
    H2Backend::start(|mut visit| async move {
        let mut stream = visit.respond.send_response(Response::new(()), false).unwrap();
        while let Some(Ok(data)) = visit.body.data().await {
            visit.body.flow_control().release_capacity(data.len()).unwrap();
            let mut data = data;
            while !data.is_empty() {
                let Some(room) = room(&mut stream, data.len()).await else { return };
                stream.send_data(data.split_to(room), false).unwrap();
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 0.into());
        stream.send_trailers(trailers).unwrap();
    })
    .await
}

#[tokio::test]
async fn a_conversation_goes_back_and_forth_on_one_stream() {
    let backend = echo().await;
    let (_sidecar, client) = before(&backend).await;
    let (response, mut stream) = client.open(post("/")).await;
    // The answer begins before anything of the body was sent.
    let mut body = in_time("the head", response).await.unwrap().into_body();
    for round in 0..50 {
        let message = Bytes::from(format!("message {round}"));
        room(&mut stream, message.len()).await.unwrap();
        stream.send_data(message.clone(), false).unwrap();
        let heard = in_time("an echo", body.data()).await.unwrap().unwrap();
        body.flow_control().release_capacity(heard.len()).unwrap();
        assert_eq!(heard, message);
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert!(in_time("the end", body.data()).await.is_none());
    assert_eq!(in_time("trailers", body.trailers()).await.unwrap().unwrap()["grpc-status"], "0");
}

#[tokio::test]
async fn both_directions_carry_long_bodies_at_once() {
    let backend = echo().await;
    let (_sidecar, client) = before(&backend).await;
    let all: Bytes = (0..8_000_000u32).map(|index| (index * 7 % 251) as u8).collect();
    let streams = (0..4).map(|_| async {
        let (response, stream) = client.open(post("/")).await;
        let receiving = async { read(response.await.unwrap().into_body()).await.unwrap() };
        let ((), (body, trailers)) = tokio::join!(send_all(stream, all.clone(), None), receiving);
        assert!(body == all && trailers.is_some());
    });
    in_time("all of it", futures::future::join_all(streams)).await;
}

#[tokio::test]
async fn an_answer_may_end_before_the_request() {
    let backend = H2Backend::start(|mut visit| async move {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", 9.into());
        let mut stream = visit.respond.send_response(Response::new(()), false).unwrap();
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    let (_sidecar, client) = before(&backend).await;
    let (response, mut stream) = client.open(post("/")).await;
    let (body, trailers) = in_time("an answer", read(response.await.unwrap().into_body())).await.unwrap();
    assert!(body.is_empty());
    assert_eq!(trailers.unwrap()["grpc-status"], "9");
    let reason =
        in_time("no more is wanted", std::future::poll_fn(|context| stream.poll_reset(context))).await;
    assert_eq!(reason.unwrap(), Reason::NO_ERROR);
}

#[tokio::test]
async fn a_head_with_all_that_there_is_stays_the_only_one() {
    let backend = H2Backend::start(|visit| async move {
        let mut asked = visit.read().await.unwrap();
        let response = Response::builder().header("grpc-status", 5).body(()).unwrap();
        asked.respond.send_response(response, true).unwrap();
    })
    .await;
    let (_sidecar, client) = before(&backend).await;
    let response = in_time("an answer", client.begin(get("/")).await).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "5");
    assert!(response.body().is_end_stream());
}

#[tokio::test]
async fn a_call_that_is_taken_back_is_taken_back_from_its_backend() {
    // Before the head of the answer, and in the middle of an answer that is silent.
    for answered in [false, true] {
        let (begun, reset) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let (seen, told) = (Arc::clone(&begun), Arc::clone(&reset));
        let backend = H2Backend::start(move |mut visit| {
            let (begun, reset) = (Arc::clone(&seen), Arc::clone(&told));
            async move {
                begun.store(true, Ordering::Relaxed);
                let reason = if answered {
                    let mut stream = visit.respond.send_response(Response::new(()), false).unwrap();
                    std::future::poll_fn(|context| stream.poll_reset(context)).await
                } else {
                    std::future::poll_fn(|context| visit.respond.poll_reset(context)).await
                };
                assert_eq!(reason.unwrap(), Reason::CANCEL);
                reset.store(true, Ordering::Relaxed);
            }
        })
        .await;
        let (sidecar, client) = before(&backend).await;
        let response = client.begin(get("/")).await;
        until("the call is there", || begun.load(Ordering::Relaxed)).await;
        if answered {
            drop(in_time("the head", response).await.unwrap());
        } else {
            drop(response);
        }
        until("it was taken back", || reset.load(Ordering::Relaxed)).await;
        until("nothing is left", || sidecar.listener.requests() == 0).await;
    }
}

#[tokio::test]
async fn a_reset_in_the_middle_reaches_the_client_as_one() {
    let backend = H2Backend::start(|mut visit| async move {
        let mut stream = visit.respond.send_response(Response::new(()), false).unwrap();
        stream.send_data("abc".into(), false).unwrap();
        tokio::task::yield_now().await;
        stream.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let (_sidecar, client) = before(&backend).await;
    assert_eq!(client.fails(get("/")).await.reason(), Some(Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_slow_reader_slows_its_backend_down_and_nobody_else() {
    let sent = Arc::new(AtomicUsize::new(0));
    let shared = Arc::clone(&sent);
    let backend = H2Backend::start(move |visit| {
        let sent = Arc::clone(&shared);
        async move {
            let mut respond = visit.respond;
            let mut stream = respond.send_response(Response::new(()), false).unwrap();
            if visit.head.uri().path() == "/quick" {
                return send_all(stream, "quick".into(), None).await;
            }
            loop {
                let Some(room) = room(&mut stream, 16 * 1024).await else { return };
                stream.send_data(vec![0; room].into(), false).unwrap();
                sent.fetch_add(room, Ordering::Relaxed);
            }
        }
    })
    .await;
    let (_sidecar, client) = before(&backend).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(in_time("a head", client.begin(get("/slow")).await).await.unwrap().into_body());
    }
    let mut before = 0;
    in_time("the backend stands still", async {
        while std::mem::replace(&mut before, sent.load(Ordering::Relaxed)) < sent.load(Ordering::Relaxed) {
            // On the same connections, which must have room for them.
            for _ in 0..50 {
                assert_eq!(client.get("/quick").await.text(), "quick");
            }
        }
    })
    .await;
    // Windows and buffers: what a backend may send before anyone reads.
    assert!(before < 8 * (2 << 20), "{before} bytes were taken without a reader");
    drop(held);
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_held_back() {
    let backend = H2Backend::start(|visit| async move {
        let _held = visit;
        std::future::pending::<()>().await;
    })
    .await;
    let (_sidecar, client) = before(&backend).await;
    let (_response, mut stream) = client.open(post("/")).await;
    let mut sent = 0;
    let sending = async {
        loop {
            let room = room(&mut stream, 16 * 1024).await.unwrap();
            stream.send_data(vec![0; room].into(), false).unwrap();
            sent += room;
        }
    };
    let _ = tokio::time::timeout(std::time::Duration::from_millis(500), sending).await;
    assert!(sent > 64 * 1024 && sent < 2 << 20, "{sent} bytes were taken without a reader");
}
