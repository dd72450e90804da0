//! Logs, metrics and health: what an administrator sees of the process.

mod admin;
mod logs;

pub use admin::{Readiness, router};
pub use logs::{LogError, init};
