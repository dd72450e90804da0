//! What the sidecar has unsafe code for, by itself: a small program is built with a sanitizer in seconds.

#![allow(dead_code, reason = "what has no test here is not called")]

#[path = "../../src/net/system/mod.rs"]
pub mod system;
