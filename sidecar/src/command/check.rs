//! `sidecar check`: file -> everything that is wrong with it, or what it says.

use std::{
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::ExitCode,
};

use crate::config::{
    Checked, CheckedListener, files, load,
    source::{Reading, file},
};

/// Prints errors and warnings to `err`, and a summary of a good file to `out`.
pub(super) fn check(path: &Path, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<ExitCode> {
    let document = match file::read(path) {
        Reading::Found { document, .. } => document,
        Reading::Missing { awaited, .. } => {
            writeln!(err, "{awaited}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let admin = SocketAddr::from((Ipv4Addr::UNSPECIFIED, crds::names::ADMIN_PORT));
    match load(&document.bytes, admin) {
        Ok(loaded) => {
            let text = String::from_utf8_lossy(&document.bytes);
            let problems = files::check(&text, &loaded.config);
            for problem in &problems {
                writeln!(err, "{}", problem.in_file(&document.name))?;
            }
            for warning in &loaded.warnings {
                writeln!(err, "warning: {}", warning.in_file(&document.name))?;
            }
            if !problems.is_empty() {
                return Ok(ExitCode::FAILURE);
            }
            writeln!(out, "OK: {}", document.name)?;
            summarize(&loaded.config, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(rejected) => {
            for problem in &rejected.problems {
                writeln!(err, "{}", problem.in_file(&document.name))?;
            }
            for warning in &rejected.warnings {
                writeln!(err, "warning: {}", warning.in_file(&document.name))?;
            }
            Ok(ExitCode::FAILURE)
        }
    }
}

fn summarize(config: &Checked, out: &mut dyn Write) -> io::Result<()> {
    for listener in config.listeners() {
        let (name, address) = (listener.name(), listener.socket_address());
        match listener {
            CheckedListener::Http(http) => {
                let sites: Vec<&str> = http.sites().iter().map(|site| site.name()).collect();
                let kind = if http.listener().tls.is_some() { "https" } else { "http" };
                let sites = sites.join(", ");
                writeln!(out, "  {kind} listener {name} on {address}, sites in failover order: {sites}")?;
            }
            CheckedListener::Tcp(_) => writeln!(out, "  tcp listener {name} on {address}")?,
            CheckedListener::Udp(_) => writeln!(out, "  udp listener {name} on {address}")?,
        }
    }
    Ok(())
}
