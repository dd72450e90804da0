//! Choosing a backend. Knows no protocol: sets come in by discovery, outcomes by whoever forwards.

mod set;

pub use set::{BackendSet, Endpoint, Unavailable};
