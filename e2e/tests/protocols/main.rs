//! Protocols other than plain requests, with real clients and servers on both sides.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod grpc;
mod websocket;
