//! Runs the programs that users run: kubectl and helm. They bound their own time.

use std::{
    ffi::OsStr,
    io::Write,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context, Result, bail};

/// How a program ended and what it said.
#[derive(Debug)]
pub struct Output {
    what: String,
    success: bool,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    /// Itself, unless the program failed.
    pub fn accepted(self) -> Result<Self> {
        if !self.success {
            bail!("{} failed: {}", self.what, self.stderr.trim());
        }
        Ok(self)
    }

    /// What the program said when it failed, as it had to.
    pub fn refused(self) -> Result<String> {
        if self.success {
            bail!("{} should have been refused, and was not: {}", self.what, self.stdout.trim());
        }
        Ok(self.stderr)
    }
}

/// Runs a program to its end, off the runtime's thread.
pub(crate) async fn run(
    program: &Path,
    arguments: &[&str],
    kubeconfig: &Path,
    input: String,
) -> Result<Output> {
    let mut command = Command::new(program);
    command.args(arguments).env("KUBECONFIG", kubeconfig);
    let name = program.file_name().map(OsStr::to_string_lossy).unwrap_or_default();
    let what = format!("{name} {}", arguments.join(" "));
    let failed = format!("cannot run {}", program.display());
    tokio::task::spawn_blocking(move || finish(command, what, input)).await?.context(failed)
}

fn finish(mut command: Command, what: String, input: String) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    // Beside the reading of what it says, or both could wait for each other.
    let writer = child.stdin.take().map(|mut stdin| thread::spawn(move || stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output()?;
    if let Some(writer) = writer {
        // A program that does not read its input says itself what is wrong.
        let _ = writer.join();
    }
    Ok(Output {
        what,
        success: output.status.success(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}
