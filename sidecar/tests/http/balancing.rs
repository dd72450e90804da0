//! Who gets the requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use serde_json::json;
use sidecar::balance::{BackendSet, Endpoint};
use tokio::sync::Notify;

use crate::support::{Backend, Client, Sidecar, Site, in_time, refusing, take_down, until};

#[tokio::test]
async fn one_client_reaches_all_backends_about_evenly() {
    let backends = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let sidecar = Sidecar::start(&backends.each_ref().map(|backend| backend.address)).await;
    let mut client = sidecar.client().await;
    for _ in 0..300 {
        client.get("/").await;
    }
    for backend in &backends {
        let share = backend.requests().len() * 100 / 300;
        assert!((20..=47).contains(&share), "{share} %");
        let (labels, code) = (format!("site=\"primary\",backend=\"{}\"", backend.address), "code=\"2xx\"");
        let series = format!("sidecar_http_requests_total{{listener=\"test\",{labels},{code}}}");
        assert_eq!(sidecar.metric(&series), Some(backend.requests().len() as f64));
    }
}

#[tokio::test]
async fn a_busy_backend_gets_nothing_while_another_is_free() {
    let busy = Backend::start(|mut visit| async move {
        visit.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let free = Backend::named("free").await;
    let sidecar = Sidecar::start(&[busy.address]).await;
    let mut waiting = sidecar.client().await;
    waiting.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    until("the request is there", || busy.requests().len() == 1).await;
    sidecar.sites[0].set(&[busy.address, free.address]);
    sidecar.ready().await;
    for _ in 0..50 {
        assert_eq!(sidecar.get("/").await.text(), "free");
    }
    assert_eq!(busy.requests().len(), 1);
}

#[tokio::test]
async fn the_next_site_takes_over_when_the_first_has_nothing_live() {
    let (first, second) = (Backend::named("first").await, Backend::named("second").await);
    let sites = vec![Site::new("primary", &[first.address]), Site::new("recovery", &[second.address])];
    let sidecar = Sidecar::with_sites(sites);
    sidecar.ready().await;
    assert_eq!(sidecar.get("/").await.text(), "first");
    let address = first.address;
    take_down(first).await;
    assert_eq!(sidecar.get("/").await.text(), "second");
    sidecar.sites[0].set(&[refusing().await]);
    assert_eq!(sidecar.get("/").await.text(), "second");
    let again = tokio::net::TcpSocket::new_v4().unwrap();
    again.set_reuseaddr(true).unwrap();
    again.bind(address).unwrap();
    let back = Backend::on(again.listen(16).unwrap(), |mut visit| async move {
        while visit.request().await.is_some() {
            visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nback").await;
        }
    });
    sidecar.sites[0].set(&[back.address]);
    sidecar.ready().await;
    assert_eq!(sidecar.get("/").await.text(), "back");
}

#[tokio::test]
async fn a_terminating_backend_serves_only_while_there_is_no_other() {
    let (old, new) = (Backend::named("old").await, Backend::named("new").await);
    let sidecar = Sidecar::start(&[]).await;
    let endpoint = |backend: &Backend, terminating| Endpoint { terminating, ..Endpoint::at(backend.address) };
    let set = |endpoints| BackendSet { endpoints, unavailable: Vec::new(), answered: true };
    sidecar.sites[0].send(set(vec![endpoint(&old, true)]));
    sidecar.ready().await;
    assert_eq!(sidecar.get("/").await.text(), "old");
    sidecar.sites[0].send(set(vec![endpoint(&old, true), endpoint(&new, false)]));
    sidecar.ready().await;
    for _ in 0..20 {
        assert_eq!(sidecar.get("/").await.text(), "new");
    }
}

#[tokio::test]
async fn changes_under_load_drop_no_request() {
    let backends = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let mut sidecar = Sidecar::start(&addresses).await;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = sidecar.address();
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.get("/").await.status(), 200);
                    assert_eq!(client.post("/", "x").await.status(), 200);
                    served.fetch_add(2, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for round in 0..40 {
        let before = served.load(Ordering::Relaxed);
        match round % 4 {
            0 => sidecar.sites[0].set(&addresses[..1]),
            1 => sidecar.sites[0].set(&addresses[1..]),
            2 => sidecar.update(vec![Site::new("other", &addresses[..2]), Site::new("primary", &addresses)]),
            _ => sidecar.update(vec![Site::new("primary", &addresses)]),
        }
        until("requests go on", || served.load(Ordering::Relaxed) >= before + 20).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_backend_that_has_left_gets_nothing_and_its_series_go() {
    let (gone, stays) = (Backend::named("gone").await, Backend::named("stays").await);
    let sidecar = Sidecar::start(&[gone.address]).await;
    assert_eq!(sidecar.get("/").await.text(), "gone");
    sidecar.sites[0].set(&[stays.address]);
    sidecar.ready().await;
    for _ in 0..20 {
        assert_eq!(sidecar.get("/").await.text(), "stays");
    }
    let series = |backend: &Backend| {
        format!(
            "sidecar_http_backend_up{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
            backend.address
        )
    };
    assert_eq!((sidecar.metric(&series(&gone)), sidecar.metric(&series(&stays))), (None, Some(1.0)));
}

#[tokio::test]
async fn backends_that_vanish_under_load_fail_no_get() {
    let stays = Backend::named("stays").await;
    let mut dying: Vec<Backend> = Vec::new();
    for _ in 0..4 {
        dying.push(Backend::named("dying").await);
    }
    let all: Vec<_> = dying.iter().chain([&stays]).map(|backend| backend.address).collect();
    let sidecar = Sidecar::start(&all).await;
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = sidecar.address();
    let clients: Vec<_> = (0..16)
        .map(|_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            tokio::spawn(async move {
                let mut client = Client::connect(address).await;
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get("/").await;
                    assert_eq!(response.status(), 200, "{}", response.text());
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while dying.pop().is_some() {
        let before = served.load(Ordering::Relaxed);
        until("requests go on", || served.load(Ordering::Relaxed) >= before + 200).await;
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn requests_with_the_same_header_go_to_the_same_backend() {
    let backends = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let fields = serde_json::json!({"balance": "HeaderHash", "hashHeader": "X-Tenant"});
    let sidecar = Sidecar::with_config(fields, vec![Site::new("primary", &addresses)]);
    sidecar.ready().await;
    let mut client = sidecar.client().await;
    let mut seen = std::collections::BTreeSet::new();
    for tenant in 0..30 {
        let mut answers = Vec::new();
        for _ in 0..3 {
            client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nX-TENANT: t{tenant}\r\n\r\n")).await;
            answers.push(client.receive().await.unwrap().text());
        }
        assert!(answers.iter().all(|answer| *answer == answers[0]), "{tenant}: {answers:?}");
        seen.extend(answers);
    }
    assert_eq!(seen.len(), 3);
}

#[tokio::test]
async fn a_backend_of_weight_0_finishes_what_it_has_and_gets_nothing_new() {
    let go = Arc::new(tokio::sync::Notify::new());
    let told = Arc::clone(&go);
    let slow = Backend::start(move |mut visit| {
        let told = Arc::clone(&told);
        async move {
            if visit.request().await.is_some() {
                told.notified().await;
                visit.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nslow").await;
            }
        }
    })
    .await;
    let other = Backend::named("other").await;
    let sidecar = Sidecar::start(&[slow.address]).await;
    let mut waiting = sidecar.client().await;
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request is there", || slow.requests().len() == 1).await;
    let drained = Endpoint { weight: 0, ..Endpoint::at(slow.address) };
    let endpoints = vec![drained, Endpoint::at(other.address)];
    sidecar.sites[0].send(BackendSet { endpoints, unavailable: Vec::new(), answered: true });
    sidecar.ready().await;
    for _ in 0..20 {
        assert_eq!(sidecar.get("/").await.text(), "other");
    }
    go.notify_one();
    assert_eq!(waiting.receive().await.unwrap().text(), "slow");
    let weight = format!(
        "sidecar_http_backend_weight{{listener=\"test\",site=\"primary\",backend=\"{}\"}}",
        slow.address
    );
    assert_eq!(sidecar.metric(&weight), Some(0.0));
}

/// Takes requests and never answers them.
async fn silent() -> Backend {
    Backend::start(|mut visit| async move {
        visit.request().await;
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test]
async fn when_every_backend_has_as_much_as_it_may_the_answer_is_503_at_once() {
    for limits in [serde_json::json!({"maxRequests": 1}), serde_json::json!({"maxConnections": 1})] {
        let backends = [silent().await, silent().await];
        let addresses = backends.each_ref().map(|backend| backend.address);
        let fields = serde_json::json!({"backendLimits": limits});
        let sites = vec![Site::new("primary", &addresses), Site::new("recovery", &[refusing().await])];
        let sidecar = Sidecar::with_config(fields, sites);
        sidecar.ready().await;
        let mut waiting = Vec::new();
        for count in 1..=2 {
            let mut client = sidecar.client().await;
            client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
            waiting.push(client);
            let there = || backends.iter().map(|backend| backend.requests().len()).sum::<usize>();
            until("the request is there", || there() == count).await;
        }
        assert!(backends.iter().all(|backend| backend.requests().len() == 1), "{limits}");
        let response = sidecar.client().await.post("/", "x").await;
        assert_eq!((response.status(), response.header("retry-after")), (503, Some("1")), "{limits}");
        assert_eq!(
            response.text(),
            "every backend of listener test has as many requests as its limits allow\n"
        );
    }
}

#[tokio::test]
async fn a_check_goes_to_the_port_that_is_named_for_it() {
    let (backend, doctor) = (Backend::named("one").await, Backend::named("well").await);
    let checked_at =
        |port: u16| serde_json::json!({"health": {"path": "/up", "port": port, "interval": "1h"}});
    let start = async |port| {
        let sidecar = Sidecar::with_config(checked_at(port), vec![Site::new("primary", &[backend.address])]);
        sidecar.ready().await;
        sidecar
    };
    let sidecar = start(doctor.address.port()).await;
    assert_eq!(doctor.requests()[0].start, "GET /up HTTP/1.1");
    assert_eq!(sidecar.get("/").await.text(), "one");
    let sidecar = start(refusing().await.port()).await;
    assert_eq!(sidecar.get("/").await.status(), 503);
    assert_eq!(backend.requests().len(), 1, "it was asked for nothing else");
}

/// A backend that answers `/ready` when it is told to, and tells others whether they came after that; and a sidecar that is to
/// send it nothing else before.
async fn awaited(ready: &Arc<Notify>) -> (Backend, Sidecar) {
    let (ready, live) = (Arc::clone(ready), Arc::<AtomicBool>::default());
    let backend = Backend::start(move |mut visit| {
        let (ready, live) = (Arc::clone(&ready), Arc::clone(&live));
        async move {
            while let Some(request) = visit.request().await {
                if request.start.contains("/ready") {
                    ready.notified().await;
                    live.store(true, Ordering::Relaxed);
                }
                let told = if live.load(Ordering::Relaxed) { "live" } else { "soon" };
                visit.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{told}")).await;
            }
        }
    })
    .await;
    let health = json!({"health": {"path": "/ready", "interval": "1h", "timeout": "1m", "initial": "Down"}});
    let sidecar = Sidecar::with_config(health, vec![Site::new("primary", &[backend.address])]);
    (backend, sidecar)
}

#[tokio::test]
async fn where_backends_start_down_a_request_waits_for_their_first_check() {
    let ready = Arc::<Notify>::default();
    let (backend, sidecar) = awaited(&ready).await;
    let mut client = sidecar.client().await;
    client.send("GET /first HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the check, and the request that waits for it", || {
        let in_flight = sidecar.metric("sidecar_http_requests_in_flight{listener=\"test\"}");
        !backend.requests().is_empty() && in_flight == Some(1.0)
    })
    .await;
    ready.notify_one();
    assert_eq!(in_time("the answer", client.receive()).await.unwrap().text(), "live");
    let starts: Vec<_> = backend.requests().into_iter().map(|request| request.start).collect();
    assert!(
        starts[0].contains("/ready") && starts.iter().any(|start| start.contains("/first")),
        "{starts:?}"
    );
}

#[tokio::test]
async fn a_first_check_that_takes_too_long_is_no_reason_to_wait_for_ever() {
    let (backend, sidecar) = awaited(&Arc::default()).await;
    let answer = sidecar.get("/").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.text().contains("the only backend was not checked yet"), "{}", answer.text());
    assert!(
        backend.requests().iter().all(|request| request.start.contains("/ready")),
        "no request reached it"
    );
}
