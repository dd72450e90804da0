//! PostgreSQL: a primary, and streaming replicas of it.

use std::{
    fs::{self, Permissions},
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
};

use anyhow::{Context, Result};
use e2e::{Process, free_ports};
use tempfile::TempDir;

use super::{
    Authority,
    account::{folder, give, without_rights},
    client::{self, run},
    until,
};

/// Server programs stand outside the PATH, a folder for each major version: the one that Debian's package has.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// For what a test looks at: enough for 16 clients and small enough to start at once. Nothing is flushed, as nothing outlives it.
const SETTINGS: [&str; 8] = [
    "unix_socket_directories=",
    "fsync=off",
    "shared_buffers=32MB",
    "max_connections=100",
    "wal_level=replica",
    "hot_standby=on",
    "wal_receiver_timeout=5s",
    "logging_collector=off",
];

/// A running server. Everybody on loopback is trusted unless its rules say otherwise; the superuser is `postgres`.
pub(crate) struct Postgres {
    pub(crate) address: SocketAddr,
    process: Option<Process>,
    directory: TempDir,
}

impl Postgres {
    /// Starts a primary.
    pub(crate) fn primary() -> Result<Self> {
        Self::with("", None)
    }

    /// Starts a primary with these lines in front of its pg_hba.conf, as in `host all checker all scram-sha-256`, and, where there is
    /// an authority, with TLS as these names.
    pub(crate) fn with(rules: &str, tls: Option<(&Authority, &[&str])>) -> Result<Self> {
        Self::at(free_address(), rules, tls)
    }

    /// The same at an address of this machine.
    pub(crate) fn at(address: SocketAddr, rules: &str, tls: Option<(&Authority, &[&str])>) -> Result<Self> {
        let mut server = Self { address, process: None, directory: folder()? };
        let data = server.data();
        once("initdb", |command| {
            command
                .args([
                    "--username=postgres",
                    "--auth=trust",
                    "--no-locale",
                    "--encoding=UTF8",
                    "--no-sync",
                    "--pgdata",
                ])
                .arg(&data)
        })?;
        let hba = data.join("pg_hba.conf");
        let before = fs::read_to_string(&hba)?;
        fs::write(&hba, format!("{rules}\n{before}"))?;
        if let Some((authority, names)) = tls {
            authority.issue(&data, names)?;
            for file in ["server.crt", "server.key"].map(|file| data.join(file)) {
                give(&file)?;
                fs::set_permissions(file, Permissions::from_mode(0o600))?;
            }
            let settings = data.join("postgresql.conf");
            let before = fs::read_to_string(&settings)?;
            fs::write(settings, before + "\nssl = on\n")?;
        }
        server.run()?;
        Ok(server)
    }

    /// Starts a replica that streams from this one, with its rules and its certificate.
    pub(crate) fn replica(&self) -> Result<Self> {
        let mut server = Self { address: free_address(), process: None, directory: folder()? };
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let data = server.data();
        once("pg_basebackup", |command| {
            command
                .args([
                    "--host",
                    &ip,
                    "--port",
                    &port,
                    "--username=postgres",
                    "--no-password",
                    "--checkpoint=fast",
                ])
                .args(["--no-sync", "--write-recovery-conf", "--wal-method=stream", "--pgdata"])
                .arg(&data)
        })?;
        server.run()?;
        until("the replica streams", || {
            let said = psql(server.address, "select status from pg_stat_wal_receiver")?;
            Ok((said == "streaming").then_some(()))
        })?;
        Ok(server)
    }

    /// Starts it again after a stop, with all that it had.
    pub(crate) fn run(&mut self) -> Result<()> {
        let log = self.directory.path().join("log");
        let (ip, port) = (self.address.ip().to_string(), self.address.port().to_string());
        let data = self.data();
        // At once and in order, also when the test program goes: its shared memory would stay otherwise.
        let process = Process::start("QUIT", &log, |command| {
            without_rights(command)
                .arg(format!("{PROGRAMS}/postgres"))
                .arg("-D")
                .arg(data)
                .args(["-h", &ip, "-p", &port])
                .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
        })?;
        self.process = Some(process);
        until("PostgreSQL serves", || {
            let ready = run("pg_isready", &["-h", &ip, "-p", &port]);
            ready.map(Some).with_context(|| fs::read_to_string(&log).unwrap_or_default())
        })?;
        Ok(())
    }

    /// Ends it, and all its connections with it: nobody listens at its address after this.
    pub(crate) fn stop(&mut self) {
        self.process = None;
    }

    /// Stops the process that accepts where it is (SIGSTOP): new connections open, and nothing answers on them.
    pub(crate) fn freeze(&self) -> Result<()> {
        self.process.as_ref().context("it is stopped")?.signal("STOP")
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) -> Result<()> {
        self.process.as_ref().context("it is stopped")?.signal("CONT")
    }

    /// A folder with copies of its certificate and key, `server.crt` and `server.key`.
    pub(crate) fn certificate(&self) -> Result<TempDir> {
        let folder = tempfile::tempdir()?;
        for file in ["server.crt", "server.key"] {
            fs::copy(self.data().join(file), folder.path().join(file))?;
        }
        Ok(folder)
    }

    /// Makes this replica a primary of its own.
    pub(crate) fn promote(&self) -> Result<()> {
        psql(self.address, "select pg_promote(true, 60)").map(drop)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }
}

fn free_address() -> SocketAddr {
    let [port] = free_ports();
    (Ipv4Addr::LOCALHOST, port).into()
}

/// What psql prints of one statement, bare, on a connection of its own as the superuser.
pub(crate) fn psql(at: SocketAddr, statement: &str) -> Result<String> {
    psql_with(at, "", statement)
}

/// The same with more settings, which go before others, as in `user=checker sslmode=disable`.
pub(crate) fn psql_with(at: SocketAddr, settings: &str, statement: &str) -> Result<String> {
    let (ip, port) = (at.ip(), at.port());
    let place = format!("host={ip} port={port} user=postgres dbname=postgres connect_timeout=10 {settings}");
    run("psql", &["-XAtqv", "ON_ERROR_STOP=1", "-d", &place, "-c", statement])
}

/// Runs one of the server's programs to its end, as the account that the server has.
fn once(program: &str, arguments: impl FnOnce(&mut Command) -> &mut Command) -> Result<()> {
    let mut command = Command::new("setpriv");
    without_rights(&mut command).args(["timeout", "60", &format!("{PROGRAMS}/{program}")]);
    client::finished(arguments(&mut command)).map(drop)
}
