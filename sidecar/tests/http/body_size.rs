//! The largest body that a listener lets through: told by a length before any backend, or met on the way.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use crds::config::Protocol;
use serde_json::json;
use tokio::io::AsyncReadExt;

use crate::support::{
    Backend, Recorder, Sidecar, Site,
    h2::{H2Backend, H2Client, post, room},
    in_time, until,
};

/// A listener that lets 10 bytes through, and takes a backend out after a single failure.
async fn limited(site: Site) -> Sidecar {
    let fields = json!({"maxBodySize": 10, "outlierDetection": {"consecutiveErrors": 1}, "accessLog": {}});
    let sidecar = Sidecar::with_config(fields, vec![site]);
    sidecar.ready().await;
    sidecar
}

fn refused(sidecar: &Sidecar) -> Option<f64> {
    sidecar.metric("sidecar_http_refused_total{listener=\"test\",cause=\"BodyTooLarge\"}")
}

/// The sum over all backends.
fn sum(sidecar: &Sidecar, backends: &[std::net::SocketAddr], name: &str) -> f64 {
    let value = |address| {
        let series = format!("{name}{{listener=\"test\",site=\"primary\",backend=\"{address}\"");
        sidecar.metric(&series).unwrap()
    };
    backends.iter().map(value).sum()
}

#[tokio::test]
async fn a_length_that_is_too_large_is_refused_before_a_backend_or_the_body_is_asked_for() {
    let backend = Backend::named("a").await;
    let sidecar = limited(Site::new("primary", &[backend.address])).await;
    let mut client = sidecar.client().await;
    assert_eq!(client.post("/", "ten bytes.").await.status(), 200);
    for expect in ["", "Expect: 100-continue\r\n"] {
        let mut client = sidecar.client().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: a\r\n{expect}Content-Length: 11\r\n\r\n")).await;
        let answer = client.receive().await.unwrap();
        assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
        assert!(answer.text().contains("10 bytes"), "{}", answer.text());
        client.try_send(b"eleven byte").await;
        assert!(client.is_closed().await);
    }
    let client = H2Client::connect(sidecar.address()).await;
    let mut request = post("/");
    request.headers_mut().insert("content-length", 11.into());
    assert_eq!(client.send(request, "eleven byte").await.unwrap().status(), 413);
    // Other streams of the connection have nothing to do with it.
    assert_eq!(client.send(post("/"), "ten bytes.").await.unwrap().status(), 200);
    assert_eq!(backend.requests().len(), 2);
    assert_eq!(refused(&sidecar), Some(3.0));
    let line = &sidecar.output.objects(5).await[1];
    assert_eq!((&line["cause"], &line["status"]), (&json!("BodyTooLarge"), &json!(413)));
}

#[tokio::test]
async fn a_body_that_grows_too_large_is_broken_off_and_goes_nowhere_else() {
    let recorders = [Recorder::awaiting(usize::MAX).await, Recorder::awaiting(usize::MAX).await];
    let addresses = recorders.each_ref().map(|recorder| recorder.address);
    let sidecar = limited(Site::new("primary", &addresses)).await;
    let received = || recorders.iter().flat_map(Recorder::received).collect::<Vec<_>>();
    let begun = |requests: usize| {
        let received = received();
        received.windows(5).filter(|bytes| bytes == b"hello").count() == requests
    };

    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    until("the beginning is there", || begun(1)).await;
    client.send("6\r\nworld!\r\n0\r\n\r\n").await;
    let answer = client.receive().await.unwrap();
    assert_eq!((answer.status(), answer.header("connection")), (413, Some("close")));
    assert!(client.is_closed().await);

    let client = H2Client::connect(sidecar.address()).await;
    let (response, mut stream) = client.open(post("/")).await;
    room(&mut stream, 11).await.unwrap();
    stream.send_data(Bytes::from("hello"), false).unwrap();
    until("the beginning is there", || begun(2)).await;
    stream.send_data(Bytes::from("world!"), true).unwrap();
    assert_eq!(in_time("an answer", response).await.unwrap().status(), 413);

    assert_eq!(refused(&sidecar), Some(2.0));
    for name in ["sidecar_http_retries_total", "sidecar_http_backend_ejections_total"] {
        assert_eq!(sum(&sidecar, &addresses, name), 0.0, "{name}");
    }
    let mut all = Vec::new();
    for recorder in recorders {
        all.extend(recorder.all().await);
    }
    let all = String::from_utf8(all).unwrap();
    assert_eq!(all.matches("POST / HTTP/1.1").count(), 2, "{all}");
    assert!(!all.contains("world") && !all.contains("0\r\n\r\n"), "{all}");
}

#[tokio::test]
async fn a_backend_in_http2_is_never_told_that_such_a_body_has_ended() {
    let broken = Arc::new(Mutex::new(None));
    let told = Arc::clone(&broken);
    let backend = H2Backend::start(move |visit| {
        let broken = Arc::clone(&told);
        async move {
            let read = visit.read().await;
            *broken.lock().unwrap() = Some(read.is_err());
        }
    })
    .await;
    let sidecar = limited(Site::new("primary", &[backend.address]).speaking(Protocol::Http2)).await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    until("the request is there", || backend.connections() > 0).await;
    client.send("6\r\nworld!\r\n0\r\n\r\n").await;
    assert_eq!(client.receive().await.unwrap().status(), 413);
    until("the stream has ended", || broken.lock().unwrap().is_some()).await;
    assert_eq!(*broken.lock().unwrap(), Some(true));
}

#[tokio::test]
async fn an_answer_that_has_begun_is_cut_off_with_the_body() {
    let rest = Arc::new(Mutex::new(None));
    let told = Arc::clone(&rest);
    let backend = Backend::start(move |mut visit| {
        let rest = Arc::clone(&told);
        async move {
            visit.head().await;
            let mut beginning = [0; 10];
            visit.reader.read_exact(&mut beginning).await.unwrap();
            assert_eq!(&beginning, b"5\r\nhello\r\n");
            visit.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n").await;
            let mut bytes = Vec::new();
            // How the connection ends is of no interest: what came before is.
            let _ = visit.reader.read_to_end(&mut bytes).await;
            *rest.lock().unwrap() = Some(bytes);
        }
    })
    .await;
    let sidecar = limited(Site::new("primary", &[backend.address])).await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n").await;
    assert_eq!(client.receive_head().await.status(), 200);
    client.send("6\r\nworld!\r\n0\r\n\r\n").await;
    in_time("the end", client.reader.read_to_end(&mut Vec::new())).await.unwrap_err();
    until("the backend's end", || rest.lock().unwrap().is_some()).await;
    assert_eq!(rest.lock().unwrap().as_deref(), Some(&b""[..]), "nothing that could pass for the end");
    let line = &sidecar.output.objects(1).await[0];
    assert_eq!((&line["cause"], &line["status"]), (&json!("BodyTooLarge"), &json!(200)));
    assert_eq!(sum(&sidecar, &[backend.address], "sidecar_http_backend_ejections_total"), 0.0);
}
