//! Logs and metrics of the process.

pub(crate) mod histogram;
pub(crate) mod journal;
pub(crate) mod line;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod process;
pub mod reference;
pub(crate) mod shown;
pub mod spans;
