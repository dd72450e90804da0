//! A TCP listener while its backends, its names and its clients misbehave. With a live backend left no new connection fails.

use std::{fs, net::IpAddr, time::Duration};

use tokio::{
    net::TcpStream,
    time::{interval, timeout},
};

use crate::support::{DEADLINE, Dns, Greeter, Needs, Sidecar, Visitors, in_a_namespace, run, until};

const CLIENTS: usize = 8;
const WELL: usize = 300;
/// As many as SideLB was flooded with.
const FLOOD: usize = 20_000;

fn addresses(greeters: &[&Greeter]) -> String {
    let list: Vec<String> = greeters.iter().map(|greeter| format!("\"{}\"", greeter.address)).collect();
    format!("{{addresses: [{}]}}", list.join(", "))
}

#[tokio::test]
async fn no_connection_fails_when_one_of_three_backends_dies_and_comes_back() {
    let (one, two, three) = (Greeter::start().await, Greeter::start().await, Greeter::start().await);
    let sidecar = Sidecar::passing(&addresses(&[&one, &two, &three])).await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    let address = three.address;
    drop(three);
    visitors.ended(WELL).await;
    let open = visitors.broken();
    assert_eq!(visitors.stop("a backend of three dies").await - open, 0, "only open connections may break");
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    let three = Greeter::at(address).await;
    until("it is used again", || three.served() > 0).await;
    visitors.served(WELL).await;
    assert_eq!(visitors.stop("the backend is dead, then back").await, 0);
}

#[tokio::test]
async fn no_new_connection_fails_when_one_of_three_backends_flaps() {
    let (one, two, three) = (Greeter::start().await, Greeter::start().await, Greeter::start().await);
    let address = three.address;
    let sidecar = Sidecar::passing(&addresses(&[&one, &two, &three])).await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    let mut three = Some(three);
    for _ in 0..20 {
        visitors.ended(30).await;
        drop(three.take());
        visitors.ended(30).await;
        three = Some(Greeter::at(address).await);
    }
    let open = visitors.broken();
    let failed = visitors.stop("a backend of three flaps").await - open;
    eprintln!("{open} of them broke when they were open");
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn no_connection_fails_when_packets_to_one_of_three_backends_are_dropped() {
    let name = "streams::no_connection_fails_when_packets_to_one_of_three_backends_are_dropped";
    if !in_a_namespace(name, Needs::Network) {
        return;
    }
    let lost = Greeter::at("127.0.0.11:8001".parse().unwrap()).await;
    let (one, two) = (Greeter::start().await, Greeter::start().await);
    let sidecar = Sidecar::passing(&addresses(&[&lost, &one, &two])).await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    visitors.stop("before").await;
    run(
        "nft",
        &[
            "add table inet faults { chain out { type filter hook output priority 0; ip daddr 127.0.0.11 drop; ip saddr 127.0.0.11 drop; }; }",
        ],
    );
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    let up = format!("sidecar_tcp_backend_up{{listener=\"faults\",backend=\"{}\"}}", lost.address);
    timeout(DEADLINE, async {
        while sidecar.metric(&up).await > 0.0 {
            visitors.served(1).await;
        }
    })
    .await
    .expect("the backend is found to be down");
    visitors.served(WELL).await;
    assert_eq!(visitors.stop("packets to a backend dropped by nftables").await, 0);
}

#[tokio::test]
async fn no_connection_fails_while_the_list_of_backends_shrinks_and_grows() {
    let (one, two, three) = (Greeter::start().await, Greeter::start().await, Greeter::start().await);
    let sidecar = Sidecar::passing(&addresses(&[&one, &two, &three])).await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    for list in [&[&one][..], &[&one, &two, &three], &[&two], &[&three, &one], &[&two, &three, &one]] {
        sidecar.passes_to(&addresses(list));
        let before = list.iter().map(|greeter| greeter.served()).collect::<Vec<_>>();
        until("each of the list serves", || {
            list.iter().zip(&before).all(|(greeter, before)| greeter.served() > before + 5)
        })
        .await;
        visitors.served(WELL).await;
    }
    assert_eq!(visitors.stop("the list changes").await, 0);
}

#[tokio::test]
async fn no_connection_fails_whatever_the_dns_server_does() {
    let name = "streams::no_connection_fails_whatever_the_dns_server_does";
    if !in_a_namespace(name, Needs::NetworkAndMounts) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let resolver = directory.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    run("mount", &["--bind", resolver.to_str().unwrap(), "/etc/resolv.conf"]);

    let old = Greeter::at("127.0.0.11:8001".parse().unwrap()).await;
    let new = Greeter::at("127.0.0.12:8001".parse().unwrap()).await;
    let ips: Vec<IpAddr> = vec![old.address.ip(), new.address.ip()];
    let dns = Dns::start("127.0.0.1:53".parse().unwrap(), &ips[..1]).await;
    let sidecar = Sidecar::passing("{dns: {host: backend.test, port: 8001, groupBy: ReverseName}}").await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    dns.falls_silent();
    until("queries without an answer", || dns.ignored() >= 6).await;
    visitors.served(WELL).await;
    dns.fails();
    let asked = dns.asked();
    until("queries that failed", || dns.asked() > asked + 4).await;
    visitors.served(WELL).await;
    dns.answers(&[]);
    let asked = dns.asked();
    until("empty answers", || dns.asked() > asked + 4).await;
    visitors.served(WELL).await;
    assert_eq!(new.served(), 0);
    dns.answers(&ips[1..]);
    until("the new address", || new.served() > 0).await;
    visitors.served(WELL).await;
    assert_eq!(visitors.stop("DNS silent, failing, empty, and back with another address").await, 0);
}

#[tokio::test]
async fn a_flood_of_connections_leaves_nothing_behind() {
    let greeter = Greeter::start().await;
    let mut sidecar = Sidecar::passing(&addresses(&[&greeter])).await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    visitors.stop("before").await;
    let descriptors = at_rest(&sidecar).await;
    for wave in 0..20 {
        let mut crowd = Vec::new();
        for n in 0..FLOOD / 20 {
            let from = [127, 0, 0, 2 + (wave % 8) as u8];
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind((from, 0).into()).unwrap();
            crowd.push(socket.connect(sidecar.address).await.unwrap_or_else(|error| panic!("{n}: {error}")));
        }
        // None of them has said anything, nor waited for anything.
        drop(crowd);
    }
    assert!(sidecar.is_alive());
    sidecar.descriptors_fall_to(descriptors).await;
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    assert_eq!(visitors.stop("after 20,000 connections that came and went").await, 0);
}

#[tokio::test]
async fn without_descriptors_it_does_not_spin_and_with_them_it_serves_again() {
    let greeter = Greeter::start().await;
    let mut sidecar = Sidecar::passing(&addresses(&[&greeter])).await;
    let descriptors = at_rest(&sidecar).await;
    let id = sidecar.id().to_string();
    let soft = format!("--nofile={}:", sidecar.descriptors() + 8);
    run("prlimit", &["--pid", &id, &soft]);
    let mut band = Vec::new();
    for _ in 0..200 {
        // What is not accepted waits in the queue, and connects all the same.
        band.push(TcpStream::connect(sidecar.address).await.unwrap());
    }
    let (logged, cpu) = (sidecar.log().len(), sidecar.cpu());
    let mut tick = interval(Duration::from_secs(1));
    for _ in 0..4 {
        tick.tick().await;
    }
    let (logged, cpu) = (sidecar.log().len() - logged, sidecar.cpu() - cpu);
    eprintln!("three seconds without descriptors: {logged} bytes of log, {cpu:?} of processor time");
    assert!(logged < 64 * 1024 && cpu < Duration::from_secs(1), "{logged} bytes, {cpu:?}");
    assert!(sidecar.is_alive());
    run("prlimit", &["--pid", &id, "--nofile=4096:"]);
    drop(band);
    let visitors = Visitors::start(sidecar.address, CLIENTS);
    visitors.served(WELL).await;
    visitors.stop("descriptors freed").await;
    sidecar.descriptors_fall_to(descriptors).await;
}

/// Open descriptors once they no longer fall.
async fn at_rest(sidecar: &Sidecar) -> usize {
    let mut tick = interval(Duration::from_millis(500));
    let (mut last, mut same) = (usize::MAX, 0);
    while same < 4 {
        tick.tick().await;
        let now = sidecar.descriptors();
        same = if now < last { 0 } else { same + 1 };
        last = now.min(last);
    }
    last
}
