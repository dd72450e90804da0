//! Which backend a connection goes to, while backends come and go.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Backend, Sidecar, in_time, until};

async fn names(sidecar: &Sidecar, count: usize) -> BTreeMap<u8, usize> {
    let mut names = BTreeMap::new();
    let mut kept = Vec::new();
    for _ in 0..count {
        let (stream, name) = sidecar.greeted().await;
        *names.entry(name).or_default() += 1;
        kept.push(stream);
    }
    names
}

#[tokio::test]
async fn least_connections_counts_each_address_for_itself() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let sidecar = Sidecar::start(json!({"balance": "LeastConnections"}), &[a.address, b.address]).await;
    assert_eq!(names(&sidecar, 10).await, [(b'a', 5), (b'b', 5)].into());
}

#[tokio::test]
async fn connections_go_round_while_the_list_shrinks_and_grows() {
    let backends = [Backend::start(b'a').await, Backend::start(b'b').await, Backend::start(b'c').await];
    let all: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let sidecar = Sidecar::start(json!({"balance": "RoundRobin"}), &all).await;
    assert_eq!(names(&sidecar, 9).await, [(b'a', 3), (b'b', 3), (b'c', 3)].into());
    sidecar.set(&all[..2]);
    until("the third is out", || sidecar.metric("sidecar_tcp_backend_weight") < 2.5).await;
    assert_eq!(names(&sidecar, 8).await, [(b'a', 4), (b'b', 4)].into());
    sidecar.set(&all);
    until("the third is in", || sidecar.metric("sidecar_tcp_backend_weight") > 2.5).await;
    assert_eq!(names(&sidecar, 9).await.len(), 3);
}

#[tokio::test]
async fn one_client_address_goes_to_one_backend() {
    let backends = [Backend::start(b'a').await, Backend::start(b'b').await, Backend::start(b'c').await];
    let all: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let sidecar = Sidecar::start(json!({"balance": "SourceHash"}), &all).await;
    assert_eq!(names(&sidecar, 20).await.len(), 1);
}

#[tokio::test]
async fn connections_to_a_backend_that_has_left_the_set_go_on() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let sidecar = Sidecar::start(json!({}), &[a.address]).await;
    let (mut old, _) = sidecar.greeted().await;
    sidecar.set(&[b.address]);
    until("the new one is there", || sidecar.metric("sidecar_tcp_backend_up") > 0.5).await;
    in_time("the new one serves", async { while sidecar.greeted().await.1 != b'b' {} }).await;
    old.write_u8(3).await.unwrap();
    assert_eq!(in_time("an echo", old.read_u8()).await.unwrap(), 3);
}

#[tokio::test]
async fn an_update_drops_no_connection() {
    let (a, b) = (Backend::start(b'a').await, Backend::start(b'b').await);
    let sidecar = Sidecar::start(json!({}), &[a.address, b.address]).await;
    let (mut old, _) = sidecar.greeted().await;
    for balance in ["RoundRobin", "Random", "TwoChoices", "SourceHash", "LeastConnections"] {
        sidecar.update(json!({"balance": balance}));
        sidecar.greeted().await;
        old.write_u8(3).await.unwrap();
        assert_eq!(in_time("an echo", old.read_u8()).await.unwrap(), 3);
    }
}
