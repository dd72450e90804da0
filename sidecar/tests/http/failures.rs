//! Backends that fail: what is tried again, what never is, and what the client is told.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use sidecar::balance::{BackendSet, Unavailable};
use tokio::{io::AsyncReadExt, sync::Notify};

use crate::support::{Backend, Sidecar, Site, in_time, refusing, take_down, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Takes a request and resets the connection.
async fn resetting() -> Backend {
    Backend::start(|mut visit| async move {
        visit.request().await;
        visit.reset();
    })
    .await
}

#[tokio::test]
async fn a_refused_connect_goes_elsewhere_with_any_request() {
    let (bad, good) = (Backend::named("bad").await, Backend::named("good").await);
    let sidecar = Sidecar::start(&[bad.address, good.address]).await;
    let failures = format!(
        "sidecar_http_connect_failures_total{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
        bad.address
    );
    take_down(bad).await;
    for _ in 0..20 {
        assert_eq!(sidecar.client().await.post("/", "body").await.text(), "good");
    }
    assert_eq!(good.requests().len(), 20);
    assert!(good.requests().iter().all(|request| request.text() == "body"));
    assert_eq!(sidecar.metric(&failures), Some(1.0), "one failure tells all");
}

#[tokio::test]
async fn a_get_that_was_reset_goes_elsewhere() {
    let (bad, good) = (resetting().await, Backend::named("good").await);
    let sidecar = Sidecar::start(&[bad.address, good.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..100 {
        assert_eq!(client.get("/").await.text(), "good");
    }
    assert!(!bad.requests().is_empty());
    let series = format!(
        "sidecar_http_retries_total{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
        bad.address
    );
    assert_eq!(sidecar.metric(&series), Some(bad.requests().len() as f64));
}

#[tokio::test]
async fn a_post_that_was_reset_is_never_sent_twice() {
    let (one, two) = (resetting().await, resetting().await);
    let sidecar = Sidecar::start(&[one.address, two.address]).await;
    let response = sidecar.client().await.post("/", "x").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("reset"), "{}", response.text());
    assert_eq!(one.requests().len() + two.requests().len(), 1);
}

#[tokio::test]
async fn when_all_tries_fail_the_answer_names_each() {
    let (one, two) = (resetting().await, resetting().await);
    let sidecar = Sidecar::start(&[one.address, two.address]).await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 502);
    for backend in [&one, &two] {
        assert!(
            response.text().contains(&format!("site primary backend {}: ", backend.address)),
            "{}",
            response.text()
        );
    }
}

#[tokio::test]
async fn an_answer_cut_short_never_ends_cleanly() {
    for head in ["Content-Length: 10", "Transfer-Encoding: chunked", "Connection: close"] {
        let go = Arc::new(Notify::new());
        let told = Arc::clone(&go);
        let backend = Backend::start(move |mut visit| {
            let told = Arc::clone(&told);
            async move {
                // A check of the sidecar brings no request.
                let Some(_) = visit.request().await else { return };
                let body = if head.starts_with('T') { "3\r\nabc\r\n" } else { "abc" };
                visit.send(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")).await;
                told.notified().await;
                visit.reset();
            }
        })
        .await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
        client.receive_head().await;
        client.reader.read_exact(&mut [0; 3]).await.unwrap();
        go.notify_one();
        let mut rest = Vec::new();
        let ended = in_time("the end", client.reader.read_to_end(&mut rest)).await;
        assert!(ended.is_err(), "{head}: ended cleanly after {rest:?}");
    }
}

#[tokio::test]
async fn a_get_that_hangs_goes_elsewhere() {
    let hanging = Backend::start(|mut visit| async move {
        visit.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let good = Backend::named("good").await;
    let sites = vec![Site::new("primary", &[hanging.address]), Site::new("recovery", &[good.address])];
    let sidecar = Sidecar::with_sites(sites);
    sidecar.ready().await;
    assert_eq!(sidecar.get("/").await.text(), "good");
    assert_eq!(hanging.requests().len(), 1);
}

#[tokio::test]
async fn connections_that_backends_close_while_idle_fail_no_request() {
    let closing = || {
        Backend::start(|mut visit| async move {
            if visit.request().await.is_some() {
                visit.send(OK).await;
            }
        })
    };
    let (one, two) = (closing().await, closing().await);
    let sidecar = Sidecar::start(&[one.address, two.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status(), 200);
    }
}

#[tokio::test]
async fn a_lone_backend_gets_a_get_again_when_an_old_connection_broke() {
    let backend = Backend::start(|mut visit| async move {
        visit.request().await;
        visit.send(OK).await;
        visit.request().await;
        visit.reset();
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for _ in 0..10 {
        assert_eq!(client.get("/").await.text(), "ok");
    }
}

#[tokio::test]
async fn a_client_that_breaks_off_an_upload_costs_the_backend_nothing() {
    let backend = Backend::named("a").await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    for _ in 0..10 {
        let mut client = sidecar.client().await;
        client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc").await;
        until("the request is under way", || sidecar.listener.requests() > 0).await;
        drop(client);
        until("the request is gone", || sidecar.listener.requests() == 0).await;
    }
    assert_eq!(sidecar.get("/").await.text(), "a");
    let up = format!(
        "sidecar_http_backend_up{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
        backend.address
    );
    assert_eq!(sidecar.metric(&up), Some(1.0));
    assert_eq!(sidecar.metric("sidecar_http_backend_requests_in_flight"), Some(0.0));
}

#[tokio::test]
async fn an_early_answer_reaches_a_client_that_is_still_sending() {
    let backend = Backend::start(|mut visit| async move {
        if visit.head().await.is_some() {
            visit
                .send("HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nno")
                .await;
        }
    })
    .await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nabc").await;
    until("the answer is given", || sidecar.listener.requests() == 0 && backend.requests().len() == 1).await;
    for _ in 0..64 {
        client.send(vec![7; 1 << 15]).await;
    }
    let response = client.receive().await.unwrap();
    assert_eq!((response.status(), response.text().as_str()), (413, "no"));
    assert!(!sidecar.listener.idle(), "the client has not ended yet");
    let mut rest = Vec::new();
    in_time("the end", client.reader.read_to_end(&mut rest)).await.unwrap();
    drop(client);
    until("the connection is gone", || sidecar.listener.idle()).await;
}

#[tokio::test]
async fn a_backend_that_is_back_serves_the_next_request() {
    let address = refusing().await;
    let sidecar = Sidecar::start(&[address]).await;
    let start = Instant::now();
    assert_eq!(sidecar.get("/").await.status(), 503);
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let _back = Backend::on(tokio::net::TcpListener::bind(address).await.unwrap(), |mut visit| async move {
        while visit.request().await.is_some() {
            visit.send(OK).await;
        }
    });
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 200, "{}", response.text());
}

#[tokio::test]
async fn without_a_live_backend_the_answer_says_why_and_when_to_come_again() {
    let site = Site::new("primary", &[]);
    site.send(BackendSet {
        endpoints: Vec::new(),
        unavailable: vec![Unavailable {
            what: "Service storage/minio".into(),
            message: "does not exist; create it or correct the policy".into(),
        }],
        answered: true,
    });
    let sidecar = Sidecar::with_sites(vec![site, Site::new("recovery", &[refusing().await])]);
    sidecar.ready().await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 503);
    assert_eq!(response.header("content-type"), Some("text/plain; charset=utf-8"));
    assert!(response.header("retry-after").is_some());
    assert_eq!(
        response.text(),
        "listener test has no live backend\n\
         site primary: Service storage/minio: does not exist; create it or correct the policy\n\
         site recovery: the only backend failed its last check: connection refused\n"
    );
}

/// A backend that answers like this, beside one that answers well; and how often the first was ejected and asked.
async fn ejections_beside_a_good_one(answer: &str, requests: usize) -> (f64, usize) {
    let (bad, good) = (Backend::answering(answer).await, Backend::named("good").await);
    let sidecar = Sidecar::start(&[bad.address, good.address]).await;
    let ejections = format!(
        "sidecar_http_backend_ejections_total{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
        bad.address
    );
    for _ in 0..requests {
        sidecar.get("/").await;
    }
    (sidecar.metric(&ejections).unwrap(), bad.requests().len())
}

#[tokio::test]
async fn a_backend_that_answers_500_is_ejected() {
    let (ejections, asked) =
        ejections_beside_a_good_one("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", 200).await;
    assert_eq!(ejections, 1.0);
    assert!(asked < 60, "{asked} of 200");
}

#[tokio::test]
async fn a_501_and_a_slow_down_never_eject() {
    for answer in [
        "HTTP/1.1 501 Not Implemented\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 503 Slow Down\r\nx-minio-error-code: SlowDown\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    ] {
        let (ejections, asked) = ejections_beside_a_good_one(answer, 60).await;
        assert_eq!(ejections, 0.0, "{answer}");
        assert!(asked >= 15, "{answer}: {asked} of 60");
    }
}

#[tokio::test]
async fn a_backend_that_breaks_off_its_answers_is_ejected() {
    let bad = Backend::start(|mut visit| async move {
        if visit.request().await.is_some() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc").await;
            visit.reset();
        }
    })
    .await;
    let good = Backend::named("good").await;
    let sidecar = Sidecar::start(&[bad.address, good.address]).await;
    let ejected = format!(
        "sidecar_http_backend_ejected{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
        bad.address
    );
    for _ in 0..100 {
        let mut client = sidecar.client().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        // A short answer is an error of the connection, as it must be.
        let _ = client.receive().await;
    }
    assert_eq!(sidecar.metric(&ejected), Some(1.0));
    assert!(bad.requests().len() < 40, "{}", bad.requests().len());
}
