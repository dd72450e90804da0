//! The command line: parsed here into ready values, run elsewhere.

mod arguments;

pub use arguments::{Cli, Command, LogFormat, LogLevel, RunArgs};
