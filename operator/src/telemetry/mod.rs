//! Logs, metrics and health: what an administrator sees of the process.

mod admin;
mod logs;
mod metrics;

pub use admin::{Readiness, router};
pub use logs::{LogError, init};
pub use metrics::{Process, groups, reference};
