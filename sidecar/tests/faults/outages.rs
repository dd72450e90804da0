//! What is around the sidecar goes: all backends, the network to one of them, the DNS server.

use std::{fs, net::IpAddr, time::Instant};

use tokio::time::timeout;

use crate::support::{Backend, DEADLINE, Dns, Load, Needs, Nginx, Sidecar, get, in_a_namespace, run, until};

const CLIENTS: usize = 8;
const WELL: usize = 300;

#[tokio::test]
async fn when_all_backends_were_down_all_is_well_as_soon_as_they_are_back() {
    let (mut one, mut two) = (Nginx::start().await, Nginx::start().await);
    let sidecar = Sidecar::start(&[one.address, two.address]).await;
    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    load.take().assert_nothing_failed_before();
    one.kill();
    two.kill();
    load.goes_on(50).await;
    one.run().await;
    two.run().await;
    let back = Instant::now();
    let good = load.good();
    until("the first good request", || load.good() > good + CLIENTS).await;
    let after = back.elapsed();
    let down = load.take();
    down.print("all down (nginx)");
    assert!(down.before > 0 && down.lied == 0, "{down:?}");
    load.serves(WELL).await;
    let tally = load.stop(&format!("all back, serving after {} ms", after.as_millis())).await;
    assert_eq!((tally.before, tally.after, tally.lied), (0, 0, 0), "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_packets_to_a_backend_are_dropped() {
    let name = "outages::no_get_fails_when_packets_to_a_backend_are_dropped";
    if !in_a_namespace(name, Needs::Network) {
        return;
    }
    let lost = Backend::at("127.0.0.11:8001".parse().unwrap()).await;
    let (one, two) = (Backend::start().await, Backend::start().await);
    let sidecar = Sidecar::start(&[lost.address, one.address, two.address]).await;
    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    assert!(lost.requests() > 0);
    run(
        "nft",
        &[
            "add table inet faults { chain out { type filter hook output priority 0; ip daddr 127.0.0.11 drop; ip saddr 127.0.0.11 drop; }; }",
        ],
    );
    let up =
        format!("sidecar_http_backend_up{{listener=\"faults\",site=\"only\",backend=\"{}\"}}", lost.address);
    while sidecar.metric(&up).await > 0.0 {
        load.serves(WELL).await;
    }
    load.serves(WELL).await;
    load.stop("packets dropped by nftables").await.assert_nothing_failed_before();

    run("nft", &["delete table inet faults"]);
    let before = lost.requests();
    let load = Load::start(sidecar.address, CLIENTS);
    until("the backend is used again", || lost.requests() > before + 20).await;
    load.stop("packets pass again").await.assert_nothing_failed_before();
}

#[tokio::test]
async fn no_get_fails_when_the_dns_server_is_down_and_changes_count_when_it_is_back() {
    let name = "outages::no_get_fails_when_the_dns_server_is_down_and_changes_count_when_it_is_back";
    if !in_a_namespace(name, Needs::NetworkAndMounts) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let resolver = directory.path().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    run("mount", &["--bind", resolver.to_str().unwrap(), "/etc/resolv.conf"]);

    let old = Backend::at("127.0.0.11:8001".parse().unwrap()).await;
    let new = Backend::at("127.0.0.12:8001".parse().unwrap()).await;
    let ips: Vec<IpAddr> = vec![old.address.ip(), new.address.ip()];
    let dns = Dns::start("127.0.0.1:53".parse().unwrap(), &ips[..1]).await;
    let sidecar = Sidecar::with("{dns: {host: backend.test, port: 8001}}").await;
    timeout(DEADLINE, async { while !get(sidecar.address).await {} }).await.unwrap();

    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    dns.falls_silent();
    // Each lookup asks for both families: the TTL of a second has passed several times then.
    until("queries without an answer", || dns.ignored() >= 6).await;
    load.serves(WELL).await;
    assert_eq!(new.requests(), 0);
    dns.answers(&ips[1..]);
    until("the new address", || new.requests() > 0).await;
    load.serves(WELL).await;
    let tally = load.stop("DNS server down, then back with another address").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}
