//! HTTP listeners: accept -> hyper's HTTP/1.1 server connection -> forward -> backend.
//!
//! The protocol loop hands a request to the forward step and writes the response it gets; neither knows the other. What is
//! shared between threads are snapshots and counters. A request is never sent twice when that is not safe, and a body cut
//! short never ends cleanly.

mod attempt;
mod body;
mod client;
mod connection;
mod exchange;
mod forward;
mod headers;
mod histogram;
mod listener;
mod metrics;
mod pool;
mod reply;
mod thread;
mod tries;
mod upgrade;

/// Protocols spoken within TLS, on both sides.
pub const ALPN: &[&[u8]] = &[b"http/1.1"];

pub use listener::{Listener, OpenError};
pub use metrics::Metrics;

pub use crate::balance::SiteInput;
