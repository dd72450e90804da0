//! The HTTP data plane over real sockets: hand-written clients and backends that say exactly which bytes they send.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod auth;
mod balancing;
mod bodies;
mod body_size;
mod failures;
mod forwarding;
mod h2_backends;
mod h2_clients;
mod h2_smuggling;
mod h2_streams;
mod jwt;
mod lifecycle;
mod limits;
mod oracle;
mod retries;
mod sidekick;
mod smuggling;
mod support;
mod timeouts;
mod tls;
mod tls_files;
mod tls_rotation;
mod traces;
mod unix;
