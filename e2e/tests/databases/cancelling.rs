//! Queries that are cancelled, on the server that runs them.

use std::{
    net::SocketAddr,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, Result, ensure};
use e2e::{LocalSidecar, Process, interpreter};
use tempfile::TempDir;

use crate::support::{Authority, Postgres, addresses, psql, until};

const NAME: &str = "db.test";
const SCRIPT: &str = "tests/databases/cancelling.py";
const CANCELLED: &str = "canceling statement due to user request";

/// A client whose query sleeps for longer than a test takes.
struct Sleeper {
    process: Process,
    name: String,
    log: TempDir,
}

impl Sleeper {
    /// psql, or the script with psycopg: either cancels when it is told to by SIGINT. It has begun when a server runs its query.
    fn start(at: SocketAddr, settings: &str, psycopg: bool, servers: [SocketAddr; 2]) -> Result<Self> {
        // Each has a name of its own: a server goes on with the queries of clients that have gone.
        static STARTED: AtomicUsize = AtomicUsize::new(0);
        let name = format!("sleeper{}", STARTED.fetch_add(1, Ordering::Relaxed));
        let place = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres connect_timeout=10 application_name={name} {settings}",
            at.port()
        );
        let log = tempfile::tempdir()?;
        let python = if psycopg { Some(interpreter()?) } else { None };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(SCRIPT);
        let process = Process::start("KILL", &log.path().join("log"), |command| match python {
            Some(python) => command.arg(python).arg(script).arg(place),
            None => command.args(["psql", "-XAtq", "-d", &place, "-c", "select pg_sleep(300)"]),
        })?;
        let sleeper = Self { process, name, log };
        until("its query runs", || {
            Ok(sleeper.sleeps_on(servers[0])?.then_some(()).or(sleeper.sleeps_on(servers[1])?.then_some(())))
        })
        .with_context(|| sleeper.said())?;
        Ok(sleeper)
    }

    fn sleeps_on(&self, server: SocketAddr) -> Result<bool> {
        let running = "select count(*) from pg_stat_activity where state = 'active' and application_name";
        Ok(psql(server, &format!("{running} = '{}'", self.name))? == "1")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log.path().join("log")).unwrap_or_default()
    }
}

/// Clients until each server runs the queries of two at least, of which one each is cancelled.
fn each_its_own(
    sidecar: &LocalSidecar,
    settings: &str,
    psycopg: bool,
    servers: [SocketAddr; 2],
) -> Result<()> {
    let mut sleepers: [Vec<Sleeper>; 2] = Default::default();
    for _ in 0..20 {
        let sleeper = Sleeper::start(sidecar.address, settings, psycopg, servers)?;
        sleepers[usize::from(sleeper.sleeps_on(servers[1])?)].push(sleeper);
        if sleepers.iter().all(|of_server| of_server.len() >= 2) {
            break;
        }
    }
    for server in [1, 0] {
        let mut cancelled = sleepers[server].pop().context("a server without a query")?;
        cancelled.process.signal("INT")?;
        until("its query is cancelled", || Ok((!cancelled.process.is_alive()).then_some(())))
            .with_context(|| cancelled.said())?;
        ensure!(cancelled.said().contains(CANCELLED), "{}", cancelled.said());
        for (server, others) in servers.into_iter().zip(&mut sleepers) {
            ensure!(!others.is_empty(), "{server} has one query at most");
            for other in others {
                let runs = other.sleeps_on(server)? && other.process.is_alive();
                ensure!(runs, "another query has ended: {}", other.said());
            }
        }
    }
    let failed = sidecar.metric("sidecar_tcp_failed_total{listener=\"db\",cause=\"Cancel\"")?;
    ensure!(failed == 0.0, "{failed} requests to cancel went nowhere");
    Ok(())
}

fn started(servers: [SocketAddr; 2], fields: &str) -> Result<LocalSidecar> {
    let backends = addresses(&servers);
    LocalSidecar::with(|port| {
        format!("tcp:\n- {{name: db, port: {port}, balance: RoundRobin, backends: [{backends}], {fields}}}\n")
    })
}

#[test]
fn a_query_is_cancelled_on_the_server_that_runs_it_and_all_others_go_on() -> Result<()> {
    let (one, two) = (Postgres::primary()?, Postgres::primary()?);
    let servers = [one.address, two.address];
    let sidecar = started(servers, "protocol: Postgres")?;
    // With the second one psycopg asks for TLS before it asks to cancel, which any server answers.
    for settings in ["sslmode=disable", "sslmode=prefer"] {
        for psycopg in [false, true] {
            each_its_own(&sidecar, settings, psycopg, servers)?;
        }
    }
    Ok(())
}

#[test]
fn a_query_within_tls_is_cancelled_on_its_server_by_clients_that_ask_in_plain_text_and_within_tls()
-> Result<()> {
    let authority = Authority::new()?;
    let tls = Some((&authority, &[NAME][..]));
    let (one, two) = (Postgres::with("", tls)?, Postgres::with("", tls)?);
    let servers = [one.address, two.address];
    let folder = tempfile::tempdir()?;
    authority.issue(folder.path(), &[NAME])?;
    let (folder, ca) = (folder.path().display(), authority.file());
    let sidecar = started(
        servers,
        &format!(
            "tls: {{certificateFile: {folder}/server.crt, keyFile: {folder}/server.key, startTls: Postgres}}, \
             backendTls: {{caFile: {}, serverName: {NAME}, startTls: Postgres}}",
            ca.display()
        ),
    )?;
    let settings = format!("host={NAME} hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", ca.display());
    // psql 15 asks in plain text, psycopg as its connection is.
    for psycopg in [false, true] {
        each_its_own(&sidecar, &settings, psycopg, servers)?;
    }
    Ok(())
}
