//! parse -> build -> serve -> drain. Each step is in the library.

use std::process::ExitCode;

use sidecar::command::Invocation;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // kube's TLS takes the process's provider, and ring is the only one that is built in: a second install is no error.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Invocation::of_process() {
        Ok(invocation) => invocation.execute(),
        Err(code) => code,
    }
}
