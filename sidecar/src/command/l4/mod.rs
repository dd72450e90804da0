//! `sidecar l4`, and the program by the name of `sidelb`: arguments -> [`config`] -> the same runtime that a policy's
//! configuration runs in.
//!
//! Everything that is wrong with the arguments is told before anything listens.

mod arguments;
mod config;

#[cfg(test)]
mod tests;

use std::{
    io::{Read, Write},
    num::NonZeroUsize,
    os::unix::net::UnixStream,
    path::Path,
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
pub(super) use arguments::{Arguments, EXAMPLES};
use tokio_util::sync::CancellationToken;

use self::arguments::Wanted;
use crate::{
    config::source::Document,
    runtime::{self, Configuration, Mode, status_socket::HEALTHY},
    telemetry::log,
};

/// Where SideLB tells whether it has a live backend, and asks for it.
const STATUS_SOCKET: &str = "/run/sidelb.sock";

/// Time for each step of asking there.
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);

impl Arguments {
    /// Serves until a signal comes.
    pub(super) fn execute(self) -> anyhow::Result<ExitCode> {
        if self.health_check_uds {
            ask(Path::new(STATUS_SOCKET))?;
            return Ok(ExitCode::SUCCESS);
        }
        let document = self.document()?;
        log::start(self.log_level, self.log_format);
        runtime::run(runtime::Options {
            config: Configuration::Given(document),
            state_dir: None,
            threads: self
                .threads
                .unwrap_or_else(|| thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
            admin_address: self.admin_address,
            mode: Mode::Native,
            zone: None,
            stop: CancellationToken::new(),
            serving: None,
            status_socket: Some(STATUS_SOCKET.into()),
        })?;
        Ok(ExitCode::SUCCESS)
    }

    /// The configuration as the bytes of a file, which has passed every check that a file has to pass.
    fn document(&self) -> anyhow::Result<Document> {
        let config = config::config(&Wanted::parse(&self.arguments)?);
        let text =
            serde_json::to_string(&config).context("the arguments cannot be written as a configuration")?;
        if let Err(rejected) = crate::config::load(text.as_bytes(), self.admin_address)
            && let Some(first) = rejected.problems.first()
        {
            bail!("{}; {}", first.message, first.remedy);
        }
        Ok(Document { name: "the command line".to_owned(), bytes: text.into_bytes() })
    }
}

/// Asks the one that runs on this machine.
fn ask(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let mut stream = UnixStream::connect(path)
        .with_context(|| format!("nobody answers at {shown}; is `sidecar l4` running on this machine?"))?;
    stream.set_read_timeout(Some(STATUS_TIMEOUT))?;
    stream.set_write_timeout(Some(STATUS_TIMEOUT))?;
    let mut answer = String::new();
    stream
        .write_all(b"Q")
        .and_then(|()| Read::take(&mut stream, 64).read_to_string(&mut answer))
        .with_context(|| format!("no answer from {shown}"))?;
    if answer.trim() != HEALTHY {
        bail!("it has no live backend");
    }
    Ok(())
}
