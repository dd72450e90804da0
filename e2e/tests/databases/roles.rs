//! Checks by role, asked of real servers: listeners follow a fail-over, whoever makes it.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use e2e::LocalSidecar;

use crate::support::{Authority, Postgres, Redis, addresses, psql, redis_cli, until};

/// What the user of the checks is known by.
const PASSWORD: &str = "correct horse";

fn listener(backends: &[SocketAddr], health: &str) -> Result<LocalSidecar> {
    let backends = addresses(backends);
    LocalSidecar::with(|port| {
        format!(
            "tcp:\n- name: db\n  port: {port}\n  balance: RoundRobin\n  backends: [{backends}]\n  health: {{interval: 200ms, timeout: 2s, {health}}}\n"
        )
    })
}

/// Each of some new connections reaches this server.
fn only(
    sidecar: &LocalSidecar,
    server: SocketAddr,
    port: impl Fn(SocketAddr) -> Result<String>,
) -> Result<()> {
    until("the server with the role serves", || {
        Ok(port(sidecar.address).is_ok_and(|found| found == server.port().to_string()).then_some(()))
    })?;
    for _ in 0..10 {
        let found = port(sidecar.address)?;
        ensure!(found == server.port().to_string(), "the server at {found}, not {server}");
    }
    Ok(())
}

#[test]
fn a_promotion_moves_the_listener_of_the_primary_and_leaves_that_of_the_replicas_without_any() -> Result<()> {
    let authority = Authority::new()?;
    let rules = "hostssl all checker all scram-sha-256\nhost all checker all reject";
    let mut primary = Postgres::with(rules, Some((&authority, &["127.0.0.1"])))?;
    psql(primary.address, &format!("create role checker login password '{PASSWORD}'"))?;
    let replica = primary.replica()?;
    let password = tempfile::NamedTempFile::new()?;
    fs::write(&password, PASSWORD)?;
    let health = |role: &str| {
        let (ca, password) = (authority.file(), password.path());
        format!(
            "tls: {{caFile: {}}}, postgres: {{user: checker, database: postgres, passwordFile: {}, role: {role}}}",
            ca.display(),
            password.display()
        )
    };
    let both = [primary.address, replica.address];
    let (writes, reads) = (listener(&both, &health("Primary"))?, listener(&both, &health("Replica"))?);
    let port = |at| psql(at, "select inet_server_port()");
    only(&writes, primary.address, port)?;
    only(&reads, replica.address, port)?;

    primary.stop();
    ensure!(psql(writes.address, "select 1").is_err(), "nothing goes to a replica that is not promoted");
    replica.promote()?;
    only(&writes, replica.address, port)?;
    psql(writes.address, "create table t(x int)")?;
    until("nobody is a replica", || Ok(psql(reads.address, "select 1").is_err().then_some(())))
}

#[test]
fn the_listener_of_the_master_follows_it() -> Result<()> {
    let master = Redis::start()?;
    let replica = master.replica()?;
    for server in [&master, &replica] {
        let password = format!(">{PASSWORD}");
        redis_cli(server.address, &["acl", "setuser", "checker", "on", &password, "+ping", "+role"])?;
    }
    let password = tempfile::NamedTempFile::new()?;
    fs::write(&password, format!("{PASSWORD}\n"))?;
    let health =
        format!("redis: {{user: checker, passwordFile: {}, role: Master}}", password.path().display());
    let sidecar = listener(&[master.address, replica.address], &health)?;
    let port = |at| {
        let said = redis_cli(at, &["config", "get", "port"])?;
        Ok(said.lines().last().unwrap_or_default().to_owned())
    };
    only(&sidecar, master.address, port)?;
    redis_cli(replica.address, &["replicaof", "no", "one"])?;
    let new = replica.address;
    redis_cli(master.address, &["replicaof", &new.ip().to_string(), &new.port().to_string()])?;
    until("the old master is a replica", || {
        Ok(redis_cli(master.address, &["role"])?.starts_with("slave").then_some(()))
    })?;
    only(&sidecar, replica.address, port)
}
