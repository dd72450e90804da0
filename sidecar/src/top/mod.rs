//! `sidecar top`: /metrics of a running sidecar -> readings -> reports of what changed between two -> a table or JSON.
//!
//! It asks for nothing that Prometheus does not get, and changes nothing.

mod address;
mod exposition;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod live;
mod reading;
mod report;
mod scrape;
mod screen;
mod table;
mod text;

#[cfg(test)]
mod tests;

use std::{io, time::Duration};

pub use address::{AddressError, AdminAddress};
pub use report::Report;
pub use scrape::ScrapeError;

/// What to show, and how.
#[derive(Debug, Clone)]
pub struct Options {
    pub address: AdminAddress,
    /// Time between two readings.
    pub interval: Duration,
    /// One report and no more.
    pub once: bool,
    pub format: Format,
    pub colour: bool,
}

/// How reports are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// A table.
    Text,
    /// An object on a line of its own for each report.
    Json,
}

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    #[error(
        "{address}/metrics cannot be read: {cause}; check that a sidecar runs there, or name its address with --admin-address"
    )]
    Scrape { address: AdminAddress, cause: ScrapeError },
    #[error("the terminal cannot be used ({0}); try --once")]
    Terminal(io::Error),
    #[error("this cannot be started ({0})")]
    Start(io::Error),
}

/// Shows reports until someone wants it to end, or one of them with `once`.
pub fn run(options: Options) -> Result<(), TopError> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(TopError::Start)?;
    let result = runtime.block_on(live::run(options));
    // A read of a key that nobody waits for any more must not hold the process.
    runtime.shutdown_background();
    result
}
