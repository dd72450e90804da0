//! What the sidecar has unsafe code for, by itself: a small program is built with a sanitizer in seconds.

#[path = "../../src/net/datagrams.rs"]
pub mod datagrams;
