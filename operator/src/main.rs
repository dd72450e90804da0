//! Parses the command line and runs what it names.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use operator::{
    command::{self, Cli, Command},
    telemetry,
};
use tokio::runtime::{Builder, Runtime};

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
        Command::Run(args) => {
            telemetry::init(args.log_level, args.log_format)?;
            Ok(runtime()?.block_on(operator::run::run(*args))?)
        }
        Command::Inject(args) => Ok(command::inject(&args, io::stdout().lock(), io::stderr().lock())?),
        Command::Explain(args) => Ok(command::explain(&args, io::stdout().lock())?),
        Command::Probe { url } => {
            let body = runtime()?.block_on(command::probe(&url))?;
            Ok(writeln!(io::stdout().lock(), "{url} answers 200: {}", body.trim())?)
        }
        Command::Completions { shell } => Ok(command::completions(shell, io::stdout().lock())?),
    }
}

/// Two threads: a busy controller must not delay admissions, and more would only cost memory on large nodes.
fn runtime() -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(2).enable_all().build()
}

/// The error and its causes, on one line each.
#[expect(clippy::print_stderr, reason = "the command line's answer to its user")]
fn report(error: &anyhow::Error) {
    eprintln!("error: {error}");
    for cause in error.chain().skip(1) {
        eprintln!("  because {cause}");
    }
}
