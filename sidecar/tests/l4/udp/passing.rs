//! Datagrams there and back.

use std::{collections::BTreeSet, io::IoSlice, net::SocketAddr};

use serde_json::json;
use sidecar::net::datagrams::{self, To};
use tokio::net::UdpSocket;

use super::support::{Backend, Client, Udp};
use crate::support::{in_time, until};

/// Of IPv4: what a packet holds, less its headers.
const LONGEST: usize = 65_507;

#[tokio::test]
async fn a_client_keeps_its_backend_and_gets_its_own_answers_alone() {
    let backends = [Backend::named("a").await, Backend::named("b").await];
    let sidecar = Udp::start(&backends.each_ref().map(|backend| backend.address));
    let mut served_by = BTreeSet::new();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push((sidecar.client().await, String::new()));
    }
    for round in 0..20 {
        for (number, (client, backend)) in clients.iter_mut().enumerate() {
            let text = format!("{number} {round}");
            let answer = client.ask(&text).await;
            let (name, rest) = answer.split_once(' ').unwrap();
            assert_eq!(rest, text);
            if backend.is_empty() {
                *backend = name.to_owned();
                served_by.insert(name.to_owned());
            }
            assert_eq!(backend, name);
        }
    }
    assert_eq!(served_by.len(), 2, "LeastConnections spreads sessions");
    assert!(clients.iter().all(|(client, _)| client.is_silent()));
    let sources: BTreeSet<_> = backends.iter().flat_map(Backend::sources).collect();
    assert_eq!(sources.len(), 8, "each session has a socket of its own");
    let sent: f64 = backends.iter().map(|one| sidecar.of_backend("sent_datagrams_total", one.address)).sum();
    assert_eq!((sent, sidecar.listener.sessions()), (160.0, 8));
}

#[tokio::test]
async fn answers_have_no_limit() {
    let backend = Backend::at("127.0.0.1", |_| (0..200u8).map(|n| vec![n; 100]).collect()).await;
    let sidecar = Udp::start(&[backend.address]);
    let client = sidecar.client().await;
    client.send("go").await;
    for n in 0..200 {
        assert_eq!(client.receive().await, [n; 100]);
    }
    until("the counters", || sidecar.of_backend("received_datagrams_total", backend.address) == 200.0).await;
    assert_eq!(sidecar.of_backend("received_bytes_total", backend.address), 20_000.0);
}

#[tokio::test]
async fn a_strangers_datagram_never_reaches_a_client() {
    let backend = Backend::named("a").await;
    let sidecar = Udp::start(&[backend.address]);
    let client = sidecar.client().await;
    client.ask("one").await;
    let session = backend.sources()[0];
    let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for _ in 0..10 {
        stranger.send_to(b"forged", ("127.0.0.1", session.port())).await.unwrap();
    }
    assert_eq!(client.ask("two").await, "a two");
    assert!(client.is_silent());
}

#[tokio::test]
async fn the_longest_datagrams_and_empty_ones_pass_both_ways() {
    let backend = Backend::at("127.0.0.1", |datagram| vec![datagram.to_vec()]).await;
    let sidecar = Udp::start(&[backend.address]);
    let client = sidecar.client().await;
    for length in [LONGEST, 0, 1, 1472, 9000, LONGEST - 1, 0] {
        let datagram: Vec<u8> = (0..length).map(|n| n as u8).collect();
        client.send(&datagram).await;
        assert!(client.receive().await == datagram, "{length} bytes");
    }
}

#[tokio::test]
async fn what_the_kernel_puts_together_arrives_one_by_one() {
    let backend = Backend::at("127.0.0.1", |datagram| vec![datagram.to_vec()]).await;
    let sidecar = Udp::start(&[backend.address]);
    let client = sidecar.client().await;
    let datagrams: Vec<Vec<u8>> = (0..40u8).map(|n| vec![n; if n == 39 { 7 } else { 1200 }]).collect();
    let slices: Vec<_> = datagrams.iter().map(|datagram| IoSlice::new(datagram)).collect();
    datagrams::send_segments(&client.0, &To { address: None, from: None }, &slices, 1200).unwrap();
    for datagram in &datagrams {
        assert_eq!(&client.receive().await, datagram);
    }
    assert_eq!(sidecar.of_backend("sent_datagrams_total", backend.address), 40.0);
}

#[tokio::test]
async fn mixed_sizes_keep_their_order() {
    let backend = Backend::at("127.0.0.1", |datagram| vec![datagram.to_vec()]).await;
    let sidecar = Udp::start(&[backend.address]);
    let client = sidecar.client().await;
    client.ask("open").await;
    for round in 0..5u8 {
        let datagrams: Vec<Vec<u8>> =
            (0..30u8).map(|n| vec![n ^ round; [10, 10, 10, 3, 700, 700, 1, 0][usize::from(n % 8)]]).collect();
        for datagram in &datagrams {
            client.send(datagram).await;
        }
        for datagram in &datagrams {
            assert_eq!(&client.receive().await, datagram);
        }
    }
}

#[tokio::test]
async fn ipv6_is_served_and_reached() {
    let echo = |datagram: &[u8]| vec![datagram.to_vec()];
    let (four, six) = (Backend::at("127.0.0.1", echo).await, Backend::at("::1", echo).await);
    for backend in [&four, &six] {
        let sidecar = Udp::with_config(json!({"address": "::1"}), &[backend.address]);
        assert!(sidecar.address().is_ipv6());
        assert_eq!(sidecar.client().await.ask("hello").await, "hello");
        let longest = vec![7; LONGEST];
        let client = sidecar.client().await;
        client.send(&longest).await;
        assert!(client.receive().await == longest);
    }
}

#[tokio::test]
async fn answers_leave_from_the_address_that_the_client_wrote_to() {
    let backend = Backend::at("127.0.0.1", |datagram| vec![datagram.to_vec(), b"more".to_vec()]).await;
    for (any, written) in [("0.0.0.0", "127.0.0.9"), ("::", "::1"), ("::", "127.0.0.9")] {
        let sidecar = Udp::with_config(json!({"address": any}), &[backend.address]);
        let address = SocketAddr::new(written.parse().unwrap(), sidecar.address().port());
        // It is connected, so that it takes answers from there alone.
        let client = Client::of(address).await;
        assert_eq!(client.ask("hello").await, "hello");
        assert_eq!(client.receive().await, b"more");
    }
}

#[tokio::test]
async fn one_socket_that_writes_to_two_addresses_has_answers_from_both() {
    let backend = Backend::at("127.0.0.1", |datagram| vec![datagram.to_vec()]).await;
    let sidecar = Udp::with_config(json!({"address": "0.0.0.0"}), &[backend.address]);
    let client = UdpSocket::bind("0.0.0.0:0").await.unwrap();
    for ip in ["127.0.0.1", "127.0.0.2", "127.0.0.1"] {
        let address = SocketAddr::new(ip.parse().unwrap(), sidecar.address().port());
        client.send_to(ip.as_bytes(), address).await.unwrap();
        let mut buffer = [0; 64];
        let answer = in_time("an answer", client.recv_from(&mut buffer)).await.unwrap();
        assert_eq!((&buffer[..answer.0], answer.1), (ip.as_bytes(), address));
    }
}

#[tokio::test]
async fn clients_of_one_address_have_one_backend_by_source_hash() {
    let backends = [Backend::named("a").await, Backend::named("b").await, Backend::named("c").await];
    let addresses = backends.each_ref().map(|backend| backend.address);
    let sidecar = Udp::with_config(json!({"balance": "SourceHash"}), &addresses);
    let first = sidecar.client().await.ask("").await;
    for _ in 0..10 {
        assert_eq!(sidecar.client().await.ask("").await, first);
    }
}

/// SideLB waited for each answer before it went on to the next client.
#[tokio::test]
async fn a_client_whose_answer_does_not_come_delays_no_other() {
    let answers = |datagram: &[u8]| if datagram == b"wait" { Vec::new() } else { vec![datagram.to_vec()] };
    let backend = Backend::at("127.0.0.1", answers).await;
    let sidecar = Udp::start(&[backend.address]);
    let waiting = sidecar.client().await;
    for round in 0..50 {
        waiting.send("wait").await;
        let text = round.to_string();
        assert_eq!(sidecar.client().await.ask(&text).await, text);
    }
    assert!(waiting.is_silent());
}

/// SideLB's checks were datagrams, which applications took for questions.
#[tokio::test]
async fn a_backend_gets_the_datagrams_of_clients_and_no_others() {
    let backend = Backend::named("a").await;
    let checked = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let health = json!({"port": checked.local_addr().unwrap().port(), "interval": "50ms"});
    let sidecar = Udp::with_config(json!({"health": health}), &[backend.address]);
    for _ in 0..3 {
        in_time("a check", checked.accept()).await.unwrap();
    }
    assert_eq!(sidecar.client().await.ask("1").await, "a 1");
    assert_eq!(backend.sources().len(), 1);
}
