//! Faults under load, with the program as a process: how many requests fail, before and after the first byte that was passed on.
//!
//! Two promises stand in every test. A GET fails before its first byte only where no live backend remains; and an answer that
//! was cut short never ends as if it were whole. Each test prints its counts: `cargo test --test faults -- --nocapture` shows them.
//!
//! Phases go by requests served and not by the clock. Tests that need a network of their own run themselves again in a
//! namespace, which takes root, or a kernel that lets users have one.

#![allow(clippy::print_stderr, reason = "the counts are what this is for")]
#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod backends;
mod crowds;
mod long;
mod outages;
mod server_errors;
mod smuggling;
mod streams;
mod support;
