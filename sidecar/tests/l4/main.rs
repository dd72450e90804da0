//! The TCP data plane over real sockets: clients and backends that say exactly which bytes they send, and when they end.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod balancing;
mod checking;
mod connecting;
mod ending;
mod limits;
mod moving;
mod postgres;
mod proxying;
mod rebalancing;
mod routing;
mod sidelb;
mod silence;
mod support;
mod udp;
