//! Logs and metrics of the process.

pub mod lines;
pub mod log;
pub mod metrics;
pub mod process;
pub mod reference;
pub mod spans;
