//! A sidecar process, backends that misbehave on command, and load that counts.

mod backend;
mod dns;
#[path = "../../shared/free_port.rs"]
mod free_port;
mod haproxy;
mod load;
mod namespace;
mod nginx;
mod sidecar;
mod streams;

use std::time::{Duration, Instant};

pub(crate) use backend::{Backend, Manner};
pub(crate) use dns::Dns;
pub(crate) use free_port::free_port;
pub(crate) use haproxy::Haproxy;
pub(crate) use load::{Load, Tally, get};
pub(crate) use namespace::{Needs, in_a_namespace, run};
pub(crate) use nginx::Nginx;
pub(crate) use sidecar::Sidecar;
pub(crate) use streams::{Greeter, Visitors};

pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// Every object of every backend: long enough that a backend can fail in the middle of it.
pub(crate) const LENGTH: usize = 128 * 1024;

/// What all backends serve. No two halves of it are alike, so that a piece in the wrong place is seen.
pub(crate) fn object() -> Vec<u8> {
    (0..LENGTH as u32).flat_map(|n| [(n.wrapping_mul(2_654_435_761) >> 24) as u8]).collect()
}

/// Waits for a condition, letting everything else run.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    let mut tick = tokio::time::interval(POLL);
    while !condition() {
        assert!(start.elapsed() < DEADLINE, "{what} did not come in {DEADLINE:?}");
        tick.tick().await;
    }
}
