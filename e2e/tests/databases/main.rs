//! Databases, caches and names through the sidecar: real servers behind it, their own clients in front of it.
//!
//! All is started on free ports and in temporary folders, and ended with the test that started it. What takes port 53 or other
//! addresses runs itself again in a namespace of its own, which takes root, or a kernel that lets users have one.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

mod cancelling;
mod names;
mod page;
mod postgres;
mod redis;
mod roles;
mod routes;
mod servers;
mod start_tls;
mod support;
mod udp;
