//! Programs that run to their end, within a time.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs a program that must succeed, and gives what it prints.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<String> {
    finished(Command::new("timeout").args(["60", program]).args(arguments))
}

/// The same for a command that bounds its own time.
pub(super) fn finished(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("{command:?} cannot be run"))?;
    if !output.status.success() {
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        bail!("{command:?}: {}\n{out}{err}", output.status);
    }
    Ok(String::from_utf8(output.stdout)?.trim_end().to_owned())
}
