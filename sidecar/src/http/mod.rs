//! HTTP listeners: accept -> hyper's HTTP/1.1 server connection -> forward -> backend.
//!
//! The protocol loop hands a request to the forward step and writes the response it gets; neither knows the other. What is
//! shared between threads are snapshots and counters. A request is never sent twice when that is not safe, and a body cut
//! short never ends cleanly.

mod listener;
mod metrics;

pub use listener::{Listener, OpenError, SiteInput};
pub use metrics::Metrics;
