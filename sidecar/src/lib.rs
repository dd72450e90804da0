//! The sidecar: configuration -> discovery -> backend sets -> balance -> forward.
//!
//! Control tasks (configuration, discovery, checks, admin) live on a runtime of their own; the data plane runs one
//! current-thread runtime per core and meets them only through snapshots.

pub mod admin;
pub mod balance;
pub mod command;
pub mod config;
pub mod discovery;
pub mod followed;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod http;
pub mod l4;
pub mod limits;
pub mod net;
pub mod probe;
pub mod remote;
pub mod runtime;
pub mod telemetry;
pub mod top;
