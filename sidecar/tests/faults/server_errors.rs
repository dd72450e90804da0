//! One of three backends answers, but badly, while its checks are well: what can go elsewhere does, and it gets no more requests.

use crate::support::{Backend, Load, Manner, Sidecar, Tally};

const CLIENTS: usize = 16;
const WELL: usize = 400;
const DURING: usize = 6000;
/// Errors in a row that eject a backend, by default.
const IN_A_ROW: usize = 5;

/// Requests that failed, and those that the bad one got.
async fn one_of_three_answers(status: u16) -> (Tally, usize) {
    let backends = [Backend::start().await, Backend::start().await, Backend::start().await];
    let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
    let sidecar = Sidecar::start(&addresses).await;
    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    let before = backends[0].requests();
    backends[0].becomes(Manner::Answers(status));
    load.serves(DURING).await;
    let hits = backends[0].requests() - before;
    assert!(hits > 0, "the fault was never met");
    (load.stop(&format!("answers {status}, with good health: {hits} hits")).await, hits)
}

#[tokio::test]
async fn no_get_fails_when_a_backend_answers_502_503_or_504() {
    for status in [502, 503, 504] {
        let (tally, _) = one_of_three_answers(status).await;
        tally.assert_nothing_failed_before();
    }
}

/// A 500 may be the answer to the request, so it goes to the client; but not for long.
#[tokio::test]
async fn a_backend_that_answers_500_is_ejected_after_a_few() {
    let (tally, hits) = one_of_three_answers(500).await;
    assert!(hits <= IN_A_ROW + CLIENTS, "{hits} requests, {tally:?}");
    assert_eq!((tally.before, tally.after, tally.lied), (hits, 0, 0), "{tally:?}");
}
