//! Redis: a master, and replicas of it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use e2e::{Process, free_ports};
use tempfile::TempDir;

use super::{run, until};

/// A running redis-server that keeps nothing on disk.
pub(crate) struct Redis {
    pub(crate) address: SocketAddr,
    arguments: Vec<String>,
    process: Option<Process>,
    directory: TempDir,
}

impl Redis {
    /// Starts a master.
    pub(crate) fn start() -> Result<Self> {
        Self::with(&[])
    }

    /// Starts one with these arguments more, as in `["--requirepass", "secret"]`. One with a password is ready when it listens.
    pub(crate) fn with(arguments: &[&str]) -> Result<Self> {
        let [port] = free_ports();
        Self::at((Ipv4Addr::LOCALHOST, port).into(), arguments)
    }

    /// Starts one at an address of this machine.
    pub(crate) fn at(address: SocketAddr, arguments: &[&str]) -> Result<Self> {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let mut redis = Self { address, arguments, process: None, directory: tempfile::tempdir()? };
        redis.run()?;
        Ok(redis)
    }

    /// Starts a replica, and waits until it has what this one has.
    pub(crate) fn replica(&self) -> Result<Self> {
        let port = self.address.port().to_string();
        let replica = Self::with(&["--replicaof", &self.address.ip().to_string(), &port])?;
        until("the replica follows its master", || {
            let said = redis_cli(replica.address, &["info", "replication"])?;
            Ok(said.contains("master_link_status:up").then_some(()))
        })?;
        Ok(replica)
    }

    /// Starts it again after a stop, empty.
    pub(crate) fn run(&mut self) -> Result<()> {
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let log = self.directory.path().join("log");
        let own = [
            "--bind",
            &ip,
            "--port",
            &port,
            // Addresses that a namespace has besides loopback are of this machine too.
            "--protected-mode",
            "no",
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
        ];
        let process = Process::start("TERM", &log, |command| {
            command
                .arg("redis-server")
                .args(own)
                .arg("--dir")
                .arg(self.directory.path())
                .args(&self.arguments)
        })?;
        self.process = Some(process);
        until("redis-server listens", || {
            redis_cli(self.address, &["ping"])
                .map(Some)
                .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
        })?;
        Ok(())
    }

    /// Ends it: nobody listens at its address after this.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Stops it where it is (SIGSTOP): connections open, and nothing answers.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("it is stopped")?.signal("STOP")
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("it is stopped")?.signal("CONT")
    }
}

/// What redis-cli prints of one command, on a connection of its own.
pub(crate) fn redis_cli(at: SocketAddr, command: &[&str]) -> Result<String> {
    let (ip, port): (IpAddr, _) = (at.ip(), at.port().to_string());
    run("redis-cli", &[&["-h", &ip.to_string(), "-p", &port], command].concat())
}
