//! Sessions that end, backends that go, listeners that change and close.

use std::{net::SocketAddr, time::Duration};

use prometheus_client::registry::Registry;
use serde_json::json;
use sidecar::{
    balance::SiteInput,
    l4::{UdpListener, UdpMetrics, UdpParts},
    net::Workers,
};
use tokio::sync::watch;

use super::support::{Backend, Udp};
use crate::support::{in_time, until};

#[tokio::test]
async fn a_silent_session_ends() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::with_config(json!({"sessionTimeout": "50ms"}), &[backend.address]);
    let client = sidecar.client().await;
    client.ask("one").await;
    until("the end of the session", || sidecar.listener.sessions() == 0).await;
    until("its place is free", || sidecar.of_backend("backend_sessions", backend.address) < 0.5).await;
    assert_eq!(client.ask("two").await, "a two");
    assert_eq!(sidecar.of_backend("backend_opened_total", backend.address), 2.0);
    assert_eq!(sidecar.metric("sidecar_udp_evicted_total"), Some(0.0));
}

#[tokio::test]
async fn the_most_silent_session_goes_where_there_are_too_many() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::with_config(json!({"maxSessions": 3}), &[backend.address]);
    let (one, two, three) = (sidecar.client().await, sidecar.client().await, sidecar.client().await);
    for client in [&one, &two, &three, &one, &three] {
        client.ask("").await;
    }
    let four = sidecar.client().await;
    four.ask("").await;
    until("room", || sidecar.listener.sessions() == 3).await;
    assert_eq!(sidecar.metric("sidecar_udp_evicted_total"), Some(1.0));
    for client in [&one, &three, &four] {
        client.ask("").await;
    }
    let sources = backend.sources();
    let [first, second, third, again, third_again, fourth, rest @ ..] = &sources[..] else {
        panic!("{sources:?}")
    };
    assert_eq!((again, third_again), (first, third));
    assert_eq!(rest, [*first, *third, *fourth], "they have kept their sessions");
    two.ask("").await;
    assert_ne!(backend.sources().last(), Some(second), "this one has lost it");
}

#[tokio::test]
async fn a_flood_of_new_clients_leaves_the_one_in_use_alone() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::with_config(json!({"maxSessions": 50}), &[backend.address]);
    let client = sidecar.client().await;
    client.ask("").await;
    for round in 1..=20 {
        for _ in 0..20 {
            sidecar.client().await.send("flood").await;
        }
        // Not more of them at once than there is room for: it is used while they come.
        until("the flood", || backend.sources().len() >= round * 21).await;
        client.ask("").await;
    }
    let sources = backend.sources();
    let own = sources.iter().filter(|source| **source == sources[0]).count();
    assert_eq!(own, 21, "it has kept its session");
    until("room", || sidecar.listener.sessions() <= 50).await;
    until("the evictions", || sidecar.metric("sidecar_udp_evicted_total") > Some(300.0)).await;
}

#[tokio::test]
async fn a_session_whose_backend_has_gone_goes_to_another_and_the_others_stay() {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let sidecar = Udp::start(&[one.address, two.address]);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let client = sidecar.client().await;
        let before = client.ask("").await;
        clients.push((client, before));
    }
    let sources = two.sources();
    assert_eq!(sources.len(), 4);
    let three = Backend::named("three").await;
    sidecar.set(&[two.address, three.address]);
    until("the new backend", || {
        sidecar
            .metric(&format!("sidecar_udp_backend_weight{{listener=\"test\",backend=\"{}\"}}", three.address))
            .is_some()
    })
    .await;
    for (client, before) in &clients {
        // The threads have the news a moment after the metrics.
        in_time("another backend", async {
            loop {
                let (after, _) = client.insist("").await;
                assert!(before != "two " || after == "two ", "{after}");
                if before == "two " || after != "one " {
                    break;
                }
            }
        })
        .await;
    }
    assert!(two.sources().iter().filter(|source| sources.contains(source)).count() >= 8);
}

#[tokio::test]
async fn a_client_of_a_backend_that_refuses_has_another_with_its_next_datagram() {
    let (live, dead) = (Backend::named("live").await, Backend::named("dead").await);
    let address = dead.address;
    dead.stop().await;
    let sidecar = Udp::with_config(json!({"balance": "RoundRobin"}), &[live.address, address]);
    let mut lost = 0;
    for _ in 0..40 {
        let client = sidecar.client().await;
        let (answer, tries) = client.insist("").await;
        assert_eq!(answer, "live ");
        assert!(tries <= 2, "{tries} tries");
        lost += tries - 1;
    }
    until("the ejection", || sidecar.of_backend("backend_ejected", address) == 1.0).await;
    assert!(lost < 20, "{lost} clients of 40 met the backend that refuses");
}

#[tokio::test]
async fn a_backend_that_stops_and_comes_back_is_used_again() {
    let backend = Backend::named("a").await;
    let address = backend.address;
    let sidecar = Udp::start(&[address]);
    let client = sidecar.client().await;
    client.ask("").await;
    backend.stop().await;
    client.send("into the void").await;
    until("the refusal", || sidecar.of_backend("backend_refused_total", address) >= 1.0).await;
    let socket = tokio::net::UdpSocket::bind(address).await.unwrap();
    let serve = tokio::spawn(async move {
        let mut buffer = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            socket.send_to(&buffer[..length], from).await.unwrap();
        }
    });
    assert_eq!(client.insist("back").await.0, "back");
    serve.abort();
}

#[tokio::test]
async fn without_a_backend_datagrams_are_dropped_and_counted() {
    let sidecar = Udp::start(&[]);
    let client = sidecar.client().await;
    client.send("one").await;
    until("the count", || sidecar.dropped("NoBackend") == 1.0).await;
    assert_eq!(sidecar.listener.sessions(), 0);
    let backend = Backend::named("a").await;
    sidecar.set(&[backend.address]);
    assert_eq!(client.insist("two").await.0, "a two");
}

#[tokio::test]
async fn a_change_of_settings_keeps_sessions_and_counts_for_them() {
    let (one, two) = (Backend::named("a").await, Backend::named("b").await);
    let sidecar = Udp::start(&[one.address, two.address]);
    let mut clients = Vec::new();
    for _ in 0..6 {
        let client = sidecar.client().await;
        let before = client.ask("").await;
        clients.push((client, before));
    }
    sidecar.update(json!({"balance": "Random", "trafficDistribution": "None"}));
    for (client, before) in &clients {
        assert_eq!(client.ask("").await, *before);
    }
    assert_eq!(sidecar.listener.sessions(), 6);
    sidecar.update(json!({"maxSessions": 2}));
    until("fewer", || sidecar.listener.sessions() <= 2).await;
    sidecar.update(json!({"sessionTimeout": "50ms"}));
    until("none", || sidecar.listener.sessions() == 0).await;
}

#[tokio::test]
async fn a_drain_lets_sessions_in_use_go_on_and_takes_no_new_ones() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::start(&[backend.address]);
    let (busy, silent, new) = (sidecar.client().await, sidecar.client().await, sidecar.client().await);
    busy.ask("").await;
    silent.ask("").await;
    let (address, drained) = (sidecar.address(), {
        let (listener, workers) = sidecar.into_parts();
        tokio::spawn(async move {
            listener.drain(Duration::from_secs(60)).await;
            workers
        })
    });
    let (mut asked, mut begun) = (0, None);
    // Those without a datagram for a second end; this one has them all the time.
    while begun.is_none_or(|begun: std::time::Instant| begun.elapsed() < Duration::from_millis(1500)) {
        begun.get_or_insert_with(std::time::Instant::now);
        let text = asked.to_string();
        assert_eq!(busy.ask(&text).await, format!("a {text}"));
        // A thread has the news a moment later, and what came before is no new session.
        if begun.is_some_and(|begun| begun.elapsed() > Duration::from_millis(500)) {
            new.send("new").await;
        }
        asked += 1;
    }
    assert!(!drained.is_finished());
    assert!(new.is_silent(), "{asked}");
    in_time("the drain", drained).await.unwrap();
    until("the address is free", || std::net::UdpSocket::bind(address).is_ok()).await;
}

#[tokio::test]
async fn a_drain_has_a_limit() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::start(&[backend.address]);
    let (client, address) = (sidecar.client().await, sidecar.address());
    client.ask("").await;
    let (listener, _workers) = sidecar.into_parts();
    in_time("the drain", listener.drain(Duration::from_millis(20))).await;
    until("the address is free", || std::net::UdpSocket::bind(address).is_ok()).await;
}

#[tokio::test]
async fn a_session_in_use_counts_and_a_silent_one_does_not() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::start(&[backend.address]);
    assert_eq!(sidecar.listener.sessions_in_use(), 0);
    let client = sidecar.client().await;
    client.ask("").await;
    assert_eq!(sidecar.listener.sessions_in_use(), 1);
    until("silence", || sidecar.listener.sessions_in_use() == 0).await;
    assert_eq!(sidecar.listener.sessions(), 1);
}

#[tokio::test]
async fn an_address_in_use_names_the_listener_and_the_remedy() {
    let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let config = json!({"name": "dns", "port": port, "backends": []});
    let config = serde_json::from_value(config).unwrap();
    let workers = Workers::start(2).unwrap();
    let sets = watch::Sender::default();
    let backends =
        SiteInput { name: "all".to_owned(), backends: sets.subscribe(), tls: None, protocol: None };
    let parts = UdpParts { access: None, backends, check_tls: None };
    let metrics = UdpMetrics::register(&mut Registry::default());
    let error = UdpListener::open(&config, parts, &workers, &metrics).err().unwrap().to_string();
    assert!(error.starts_with(&format!("listener dns cannot listen on 127.0.0.1:{port}:")), "{error}");
    assert!(error.ends_with("choose another port, or stop what uses it"), "{error}");
}

#[tokio::test]
async fn a_backend_that_is_down_by_its_checks_gives_its_sessions_to_others() {
    // The checks are connects by TCP, which one of the two takes. The same port must be free there, now and later.
    let checkable = async |name| loop {
        let backend = Backend::named(name).await;
        if let Ok(check) = tokio::net::TcpListener::bind(backend.address).await {
            return (backend, check);
        }
    };
    let ((one, check), (two, checked)) = (checkable("one").await, checkable("two").await);
    drop(checked);
    let sidecar = Udp::with_config(json!({"health": {"interval": "100ms"}}), &[one.address, two.address]);
    let up = |address: SocketAddr| {
        sidecar.metric(&format!("sidecar_udp_backend_up{{listener=\"test\",backend=\"{address}\"}}"))
    };
    until("the checks", || up(one.address) == Some(1.0) && up(two.address) == Some(0.0)).await;
    let client = sidecar.client().await;
    assert_eq!(client.insist("").await.0, "one ");
    drop(check);
    let _check = tokio::net::TcpListener::bind(two.address).await.unwrap();
    until("the checks", || up(one.address) == Some(0.0) && up(two.address) == Some(1.0)).await;
    // The thread has the news a moment after the metrics.
    in_time("the other", async { while client.insist("").await.0 != "two " {} }).await;
}

#[tokio::test]
async fn only_backends_that_answer_the_datagram_of_the_check_get_sessions() {
    let (one, two) = (Backend::named("one").await, Backend::named("two").await);
    let fields = |expect: &str| json!({"health": {"interval": "100ms", "timeout": "5s", "udp": {"sendHex": "00ff", "expect": expect}}});
    let sidecar = Udp::with_config(fields("one \0"), &[one.address, two.address]);
    let settles = async |name: &str| {
        let settled = async {
            let mut row = 0;
            while row < 10 {
                let (answer, _) = sidecar.client().await.insist("").await;
                row = if answer == name { row + 1 } else { 0 };
            }
        };
        in_time("the right one answers", settled).await;
    };
    settles("one ").await;
    sidecar.update(fields("two \0"));
    settles("two ").await;
}
