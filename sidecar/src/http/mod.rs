//! HTTP listeners: accept -> the HTTP/1.1 loop -> forward -> backend. HTTP/2 is translated at both ends of that.
//!
//! The protocol loop hands a request to the forward step and writes the response it gets; neither knows the other. What is
//! shared between threads are snapshots and counters. A request is never sent twice when that is not safe, and a body cut
//! short never ends cleanly.

mod access;
mod admit;
mod auth;
mod exchange;
mod families;
mod forward;
mod forwarded;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod h1;
mod h2;
mod listener;
mod message;
mod metrics;
mod own_paths;
mod pool;
mod reply;
mod resume;
mod settings;
mod sidekick_page;
mod thread;
mod trace;
mod transport;
mod tries;
mod verdict;

/// Protocols that a listener speaks within TLS, the best one first.
pub const ALPN: &[&[u8]] = &[b"h2", b"http/1.1"];

pub use admit::{Gate, GateError, Means};
pub use auth::{AuthError, JwksError, KeyFiles, KeySets, Keyring, KeysError};
pub(crate) use families::groups;
pub use listener::{Listener, Parts};
pub use metrics::Metrics;

pub use crate::balance::SiteInput;
