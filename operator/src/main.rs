//! Parses the command line and runs what it names.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use operator::command::{self, Cli, Command};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run(_) => Ok(()),
        Command::Inject(args) => Ok(command::inject(&args, io::stdout().lock(), io::stderr().lock())?),
        Command::Explain(args) => Ok(command::explain(&args, io::stdout().lock())?),
        Command::Probe { url } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let body = runtime.block_on(command::probe(&url))?;
            Ok(writeln!(io::stdout().lock(), "{url} answers 200: {}", body.trim())?)
        }
        Command::Completions { shell } => Ok(command::completions(shell, io::stdout().lock())?),
    }
}

/// The error and its causes, on one line each.
#[expect(clippy::print_stderr, reason = "the command line's answer to its user")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
}
