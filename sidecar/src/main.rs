//! parse -> build -> serve -> drain. Each step is in the library.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser;
use sidecar::command::Command;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // kube's TLS takes the process's provider, and ring is the only one that is built in: a second install is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Command::parse().execute().unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "sidecar: {error:#}");
        ExitCode::FAILURE
    })
}
