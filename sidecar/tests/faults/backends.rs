//! One of three backends misbehaves under load, and two are well.

use crate::support::{Backend, Haproxy, Load, Manner, Nginx, Sidecar, Tally};

const CLIENTS: usize = 16;
/// Requests before, during and after a fault: during, more than the retry budget lasts for, if a backend got a third of them all the time.
const WELL: usize = 400;
const DURING: usize = 6000;

struct Three {
    backends: Vec<Backend>,
    sidecar: Sidecar,
    load: Load,
}

impl Three {
    async fn start() -> Self {
        let backends = vec![Backend::start().await, Backend::start().await, Backend::start().await];
        let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
        let sidecar = Sidecar::start(&addresses).await;
        let load = Load::start(sidecar.address, CLIENTS);
        load.serves(WELL).await;
        Self { backends, sidecar, load }
    }

    /// One takes to this manner, then recovers; afterwards all three serve.
    async fn one_becomes(self, manner: Manner, name: &str) -> Tally {
        let Self { backends, sidecar: _sidecar, load } = self;
        let before = backends[0].requests();
        backends[0].becomes(manner);
        load.serves(DURING).await;
        let hits = backends[0].requests() - before;
        backends[0].becomes(Manner::Good);
        load.serves(WELL).await;
        assert!(hits > 0, "the fault was never met");
        load.stop(&format!("{name}: {hits} hits")).await
    }
}

#[tokio::test]
async fn no_get_fails_when_a_backend_is_killed() {
    let backends = [Nginx::start().await, Nginx::start().await, Nginx::start().await];
    let sidecar = Sidecar::start(&backends.each_ref().map(|backend| backend.address)).await;
    each_is_killed(backends, &sidecar, "killed, each in turn (nginx)").await;
}

#[tokio::test]
async fn no_get_fails_when_a_backend_that_speaks_http2_is_killed() {
    let nginx = Nginx::speaking_http2;
    let backends = [nginx().await, nginx().await, nginx().await];
    let sidecar = Sidecar::speaking_http2(&backends.each_ref().map(|backend| backend.address)).await;
    each_is_killed(backends, &sidecar, "killed, each in turn (nginx, HTTP/2)").await;
}

async fn each_is_killed(mut backends: [Nginx; 3], sidecar: &Sidecar, name: &str) {
    let load = Load::start(sidecar.address, CLIENTS);
    for killed in &mut backends {
        load.serves(WELL).await;
        killed.kill();
        load.serves(DURING).await;
        killed.run().await;
    }
    load.stop(name).await.assert_nothing_failed_before();
}

#[tokio::test]
async fn no_get_fails_when_haproxy_as_the_backend_closes_idle_connections_and_is_replaced() {
    let server = Nginx::start().await;
    let mut haproxy = [Haproxy::start(server.address).await, Haproxy::start(server.address).await];
    let sidecar = Sidecar::start(&haproxy.each_ref().map(|backend| backend.address)).await;
    let load = Load::start(sidecar.address, CLIENTS);
    for replaced in &mut haproxy {
        for _ in 0..3 {
            load.serves(WELL).await;
            replaced.replace().await;
        }
        load.serves(DURING).await;
        replaced.settle().await;
    }
    let tally = load.stop("HAProxy, each process replaced three times").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_a_backend_hangs() {
    let tally = Three::start().await.one_becomes(Manner::Hanging, "accepts and never answers").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_a_backend_hangs_but_for_its_health() {
    let three = Three::start().await;
    let tally = three.one_becomes(Manner::HangingWithGoodHealth, "never answers, with good health").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_a_backend_sends_its_head_at_a_byte_a_second() {
    let tally = Three::start().await.one_becomes(Manner::SlowHead, "head at 1 byte/s").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_a_backend_sends_its_body_at_a_byte_a_second() {
    let tally = Three::start().await.one_becomes(Manner::SlowBody, "body at 1 byte/s").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_a_backend_resets_before_it_answers() {
    let tally = Three::start().await.one_becomes(Manner::ResetsBefore, "resets before it answers").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_body_that_a_backend_cut_short_ends_as_if_it_were_whole() {
    let tally = Three::start().await.one_becomes(Manner::CutsBody, "cuts bodies by reset and close").await;
    tally.assert_nothing_failed_before();
}

#[tokio::test]
async fn no_get_fails_when_a_backend_answers_garbage() {
    let tally = Three::start().await.one_becomes(Manner::Garbage, "answers garbage").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_a_backend_sends_a_head_without_bounds() {
    let tally = Three::start().await.one_becomes(Manner::HugeHead, "head of 64 MiB").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}

#[tokio::test]
async fn no_get_fails_when_backends_close_connections_that_are_about_to_be_used_again() {
    let three = Three::start().await;
    for backend in &three.backends {
        backend.becomes(Manner::ClosesAfterAnswer);
    }
    three.load.serves(DURING).await;
    let tally = three.load.stop("all close after each answer, unannounced").await;
    tally.assert_nothing_failed_before();
    assert_eq!(tally.after, 0, "{tally:?}");
}
