//! The command line: parsed here into ready values. `run` is wired elsewhere; what needs no cluster is done here.

mod arguments;
mod documents;
mod offline;
mod probe;
#[cfg(test)]
mod tests;

pub use arguments::{AutoMode, Cli, Command, LogFormat, LogLevel, OfflineArgs, RunArgs};
pub use offline::{OfflineError, completions, explain, inject};
pub use probe::{ProbeError, probe};
