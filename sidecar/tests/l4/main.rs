//! The TCP data plane over real sockets: clients and backends that say exactly which bytes they send, and when they end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod balancing;
mod connecting;
mod ending;
mod limits;
mod moving;
mod postgres;
mod proxying;
mod support;
mod udp;
