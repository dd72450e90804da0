//! S3 through the sidecar: a real server behind it, real clients in front of it. Every request is signed and verified, so that a
//! proxy that changed a byte of path, query, header or framing would be refused.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod boto;
mod origin;
mod sdk;
