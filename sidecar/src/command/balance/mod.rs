//! `sidecar balance`, and the program by the name of `sidekick`: flags -> [`config`] -> the same runtime that a policy's
//! configuration runs in.
//!
//! Everything that is wrong with the arguments is told before anything listens.

mod arguments;
mod config;
mod ellipses;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod secret;
mod site;

#[cfg(test)]
mod tests;

use std::{
    env,
    io::{self, IsTerminal, Write},
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    num::NonZeroUsize,
    thread,
    time::Duration,
};

use anyhow::{Context, bail};
pub(super) use arguments::{Arguments, EXAMPLES};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use self::{config::Facts, secret::SecretFile};
use crate::{
    config::{Problem, files, source::Document},
    runtime::{self, Configuration, Mode},
    telemetry::log,
    top,
};

/// How often the live table is drawn anew, as in sidekick.
const TABLE_INTERVAL: Duration = Duration::from_millis(500);

impl Arguments {
    /// Serves until a signal comes, or somebody leaves the live table.
    pub(super) fn execute(self) -> anyhow::Result<()> {
        let secret = self.key_password.as_ref().map(|password| SecretFile::new(&password.0)).transpose()?;
        let document = self.document(&Facts {
            ipv6: has_ipv6(),
            key_password_file: secret.as_ref().map(SecretFile::path),
        })?;
        if self.pprof.is_some() {
            // Whoever reads no errors has not asked for them.
            let _ = writeln!(io::stderr(), "--pprof has no effect: there is no Go program to profile");
        }
        let table = io::stdout().is_terminal() && !self.log && !self.quiet && self.traced().is_none();
        log::start(self.log_level(table), Some(self.log_format()));
        let (serving, at) = oneshot::channel();
        let stop = CancellationToken::new();
        let options = runtime::Options {
            config: Configuration::Given(document),
            state_dir: None,
            threads: self.threads.unwrap_or_else(threads),
            admin_address: self.admin_address,
            mode: Mode::Native,
            zone: None,
            stop: stop.clone(),
            serving: Some(serving),
            status_socket: None,
        };
        if table { with_table(options, at, &stop) } else { Ok(runtime::run(options)?) }
    }

    /// The configuration as the bytes of a file, which has passed every check that a file has to pass.
    fn document(&self, facts: &Facts) -> anyhow::Result<Document> {
        let text = serde_json::to_string(&config::config(self, facts)?)
            .context("the arguments cannot be written as a configuration")?;
        let problems = match crate::config::load(text.as_bytes(), self.admin_address) {
            Ok(loaded) => files::check(&text, &loaded.config),
            Err(rejected) => rejected.problems,
        };
        if let Some(first) = problems.first() {
            bail!("{}", in_flags(first));
        }
        Ok(Document { name: "the command line".to_owned(), bytes: text.into_bytes() })
    }

    /// While the table has the terminal, nothing else writes to it.
    fn log_level(&self, table: bool) -> log::Level {
        match (self.quiet || table, self.debug, self.log) {
            (true, _, _) => log::Level::Error,
            (_, true, _) => log::Level::Debug,
            (_, _, true) => log::Level::Info,
            _ => log::Level::Warn,
        }
    }

    fn log_format(&self) -> log::Format {
        if self.json { log::Format::Json } else { log::Format::Text }
    }
}

/// A problem of the configuration in the words of the command line.
fn in_flags(problem: &Problem) -> String {
    let Problem { path, message, remedy, .. } = problem;
    let field = path.trim_start_matches("http[0].");
    let flag = match field {
        "port" | "address" => "--address".to_owned(),
        "health.path" => "--health-path".to_owned(),
        "accessLog.statuses" => "--status-code".to_owned(),
        "tls.certificateFile" => "--cert".to_owned(),
        "tls.keyFile" => "--key".to_owned(),
        "tls.keyPasswordFile" => "--key-password".to_owned(),
        "tls.selfSigned.hosts" => "--auto-tls-host".to_owned(),
        _ if field.ends_with("tls.caFile") => "--cacert".to_owned(),
        _ if field.ends_with("clientCertificate.certificateFile") => "--client-cert".to_owned(),
        _ if field.ends_with("clientCertificate.keyFile") => "--client-key".to_owned(),
        _ => match site_number(field) {
            Some(number) => format!("SITE {number}"),
            None => "SITE".to_owned(),
        },
    };
    format!("{flag}: {message}; {remedy}")
}

/// From 1, as a command line is read.
fn site_number(field: &str) -> Option<usize> {
    let (index, _) = field.strip_prefix("sites[")?.split_once(']')?;
    index.parse::<usize>().ok().map(|index| index + 1)
}

/// Serves on a thread of its own, and shows the table on this one.
fn with_table(
    options: runtime::Options,
    at: oneshot::Receiver<SocketAddr>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let server = thread::Builder::new().name("control".to_owned()).spawn(move || runtime::run(options))?;
    // When it never came to serve, its error says why.
    if let Ok(admin) = at.blocking_recv() {
        let shown = top::run(top::Options {
            address: admin.into(),
            interval: TABLE_INTERVAL,
            once: false,
            format: top::Format::Text,
            colour: env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        });
        stop.cancel();
        shown?;
    }
    match server.join() {
        Ok(result) => Ok(result?),
        Err(_) => bail!("serving ended in a panic"),
    }
}

/// One for each CPU that this process may use.
fn threads() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn has_ipv6() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok()
}
