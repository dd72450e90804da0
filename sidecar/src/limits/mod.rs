//! What one sidecar lets through: shared by all threads, by atomics alone. Knows no protocol.

mod rate;
mod table;

pub use rate::{Exceeded, RateLimit};
