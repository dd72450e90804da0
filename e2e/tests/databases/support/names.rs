//! CoreDNS with a zone file that a test changes while it serves.

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use anyhow::{Context, Result};
use e2e::{Process, path_from};
use tempfile::TempDir;

use super::{run, until};

/// Its TXT record says which version of the records is served.
const VERSION: &str = "version.test";

/// A running CoreDNS: UDP and TCP at one address.
pub(crate) struct Names {
    pub(crate) address: SocketAddr,
    process: Option<Process>,
    directory: TempDir,
    version: AtomicU32,
}

impl Names {
    /// Starts one with these records, a line each as in a zone file with absolute names:
    /// `db.test. 1 IN A 127.0.0.11`, or `11.0.0.127.in-addr.arpa. 1 IN PTR db.test.`
    pub(crate) fn start(address: SocketAddr, records: &[&str]) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut names = Self { address, process: None, directory, version: AtomicU32::new(0) };
        names.write(records)?;
        names.run()?;
        Ok(names)
    }

    /// Serves these records from now on, and no others.
    pub(crate) fn serve(&self, records: &[&str]) -> Result<()> {
        self.write(records)?;
        self.reload()?;
        self.served()
    }

    /// Answers every question with SERVFAIL from now on.
    pub(crate) fn fail(&self) -> Result<()> {
        // A question that no plugin answers.
        self.configure("")?;
        self.reload()?;
        until("SERVFAIL", || {
            let answer = self.dig(&[VERSION, "TXT", "+comments"])?;
            Ok(answer.contains("status: SERVFAIL").then_some(()))
        })
    }

    /// Nobody listens at its address after this.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it again with the records that it had last.
    pub(crate) fn run(&mut self) -> Result<()> {
        let program = path_from("../.ci/coredns", &[])?;
        let log = self.directory.path().join("log");
        let process =
            Process::start("KILL", &log, |command| command.arg(program).arg("-conf").arg(self.corefile()))?;
        self.process = Some(process);
        self.served().with_context(|| fs::read_to_string(log).unwrap_or_default())
    }

    /// What dig prints of its answer.
    pub(crate) fn dig(&self, arguments: &[&str]) -> Result<String> {
        dig(self.address, arguments)
    }

    fn served(&self) -> Result<()> {
        let version = format!("\"{}\"", self.version.load(Relaxed));
        until("the records that were given last", || {
            Ok((self.dig(&[VERSION, "TXT", "+short"])? == version).then_some(()))
        })
    }

    /// CoreDNS opens its sockets anew before it closes the old ones, so that no question is lost.
    fn reload(&self) -> Result<()> {
        self.process.as_ref().context("it is stopped")?.signal("USR1")
    }

    fn write(&self, records: &[&str]) -> Result<()> {
        let version = self.version.fetch_add(1, Relaxed) + 1;
        let zone = format!(
            ". 1 IN SOA {VERSION}. nobody.test. {version} 60 60 60 1\n. 1 IN NS {VERSION}.\n\
             {VERSION}. 0 IN TXT {version}\n{}\n",
            records.join("\n")
        );
        let file = self.directory.path().join("zone");
        fs::write(&file, zone)?;
        self.configure(&format!("file {} .", file.display()))
    }

    fn configure(&self, plugin: &str) -> Result<()> {
        let (ip, port) = (self.address.ip(), self.address.port());
        let text = format!(".:{port} {{\n  bind {ip}\n  errors\n  {plugin}\n}}\n");
        Ok(fs::write(self.corefile(), text)?)
    }

    fn corefile(&self) -> PathBuf {
        self.directory.path().join("Corefile")
    }
}

/// What dig prints of the answer of whoever listens there, which it asks once unless the arguments say otherwise.
pub(crate) fn dig(at: SocketAddr, arguments: &[&str]) -> Result<String> {
    let (server, port) = (format!("@{}", at.ip()), at.port().to_string());
    let own = [&server, "-p", &port, "+tries=1", "+time=2", "+noall", "+answer"];
    run("dig", &[&own, arguments].concat())
}
