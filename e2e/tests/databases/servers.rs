//! The servers of these tests are what their names say.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Result, ensure};

use crate::support::{Authority, Names, Postgres, Redis, in_a_namespace, psql, redis_cli, run, until};

#[test]
fn a_postgres_replica_streams_from_its_primary_and_takes_its_place() -> Result<()> {
    let primary = Postgres::primary()?;
    let replica = primary.replica()?;
    psql(primary.address, "create table t(x int); insert into t values (1)")?;
    until(
        "the replica has the row",
        || Ok((psql(replica.address, "select x from t")? == "1").then_some(())),
    )?;
    ensure!(psql(replica.address, "insert into t values (2)").is_err(), "a replica is read-only");
    replica.promote()?;
    psql(replica.address, "insert into t values (2)").map(drop)
}

#[test]
fn a_postgres_server_has_tls_and_passwords_where_it_is_told_to() -> Result<()> {
    let authority = Authority::new()?;
    let rules = "hostssl all checker all scram-sha-256\nhost all checker all reject";
    let server = Postgres::with(rules, Some((&authority, &["db.test", "127.0.0.1"])))?;
    psql(server.address, "create role checker login password 'word'")?;
    let whoever = |more: &str| {
        let place = format!(
            "host=127.0.0.1 port={} dbname=postgres user=checker {more} sslrootcert={}",
            server.address.port(),
            authority.file().display()
        );
        run("psql", &["-XAtq", "-d", &place, "-c", "select 1"])
    };
    ensure!(whoever("password=word sslmode=verify-full")? == "1");
    ensure!(whoever("password=wrong sslmode=verify-full").is_err(), "a wrong password");
    ensure!(whoever("password=word sslmode=disable").is_err(), "no TLS");
    Ok(())
}

#[test]
fn a_frozen_server_takes_connections_and_answers_nothing_until_it_goes_on() -> Result<()> {
    let (postgres, redis) = (Postgres::primary()?, Redis::start()?);
    postgres.freeze()?;
    redis.freeze()?;
    for address in [postgres.address, redis.address] {
        let mut silent = TcpStream::connect(address)?;
        silent.set_read_timeout(Some(Duration::from_millis(100)))?;
        // Each would say something to these.
        silent.write_all(b"PING\r\n\r\n")?;
        ensure!(silent.read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
    }
    postgres.thaw()?;
    redis.thaw()?;
    psql(postgres.address, "select 1")?;
    redis_cli(redis.address, &["ping"]).map(drop)
}

#[test]
fn a_redis_replica_has_what_its_master_has() -> Result<()> {
    let master = Redis::start()?;
    let replica = master.replica()?;
    redis_cli(master.address, &["set", "k", "v"])?;
    until("the replica has the key", || Ok((redis_cli(replica.address, &["get", "k"])? == "v").then_some(())))
}

#[test]
fn a_dns_server_answers_from_zones_that_change() -> Result<()> {
    if !in_a_namespace("servers::a_dns_server_answers_from_zones_that_change") {
        return Ok(());
    }
    let mut names = Names::start(
        "127.0.0.1:53".parse()?,
        &["db.test. 1 IN A 127.0.0.11", "11.0.0.127.in-addr.arpa. 1 IN PTR one.test."],
    )?;
    ensure!(names.dig(&["db.test", "A", "+short"])? == "127.0.0.11");
    ensure!(names.dig(&["-x", "127.0.0.11", "+short"])? == "one.test.");
    names.serve(&["db.test. 1 IN AAAA ::1", "_pg._tcp.db.test. 1 IN SRV 0 5 5432 db.test."])?;
    ensure!(names.dig(&["db.test", "AAAA", "+short"])? == "::1");
    ensure!(names.dig(&["_pg._tcp.db.test", "SRV", "+short"])? == "0 5 5432 db.test.");
    ensure!(names.dig(&["db.test", "A", "+short"])?.is_empty());
    names.fail()?;
    names.serve(&[])?;
    names.stop();
    ensure!(names.dig(&["db.test", "A"]).is_err(), "it is stopped");
    names.run()
}
