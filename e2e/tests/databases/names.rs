//! Backends of a DNS name: whatever becomes of the DNS server, new connections reach a live server; addresses that reverse DNS
//! knows as one server are one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use e2e::LocalSidecar;

use crate::support::{Names, Redis, here, in_a_namespace, redis_cli, until};

/// Of servers. Reverse DNS has one name for all of loopback, which no server is asked for.
const ADDRESSES: [&str; 4] = ["10.0.0.1/32", "10.0.0.2/32", "10.0.0.3/32", "fd00::1/128"];
const SERVER: &str = "127.0.0.1:53";
/// Of every record here; the sidecar asks no more often.
const TTL: Duration = Duration::from_secs(1);
const MEMBERS: [&str; 2] = ["cache.test. 1 IN A 10.0.0.1", "cache.test. 1 IN A 10.0.0.2"];

/// What becomes of the DNS server.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Down,
    ServFail,
    NoSuchName,
    NoRecords,
}

impl Fault {
    fn begin(self, names: &mut Names) -> Result<()> {
        match self {
            Self::Down => names.stop(),
            Self::ServFail => names.fail()?,
            Self::NoSuchName => names.serve(&[])?,
            Self::NoRecords => names.serve(&["cache.test. 1 IN TXT nothing"])?,
        }
        Ok(())
    }

    fn end(self, names: &mut Names, records: &[&str]) -> Result<()> {
        if let Self::Down = self {
            names.run()?;
        }
        names.serve(records)
    }
}

/// An outage here takes seconds, and one of two minutes differs in nothing: no time runs out for a set, which only an answer
/// takes the place of. So it is enough that the TTL has passed, that look-ups have failed since, and that connections come on.
#[test]
fn no_new_connection_fails_while_dns_is_down_or_fails_or_answers_with_nothing() -> Result<()> {
    if !in_a_namespace("names::no_new_connection_fails_while_dns_is_down_or_fails_or_answers_with_nothing") {
        return Ok(());
    }
    here(&ADDRESSES)?;
    let _one = named("10.0.0.1", "one", &[])?;
    let mut two = named("10.0.0.2", "two", &[])?;
    let mut names = Names::start(SERVER.parse()?, &MEMBERS)?;
    let sidecars =
        [listener("{host: cache.test, port: 6379}")?, LocalSidecar::l4(&["ring_domain=cache.test:6379"])?];
    for sidecar in &sidecars {
        reaches(sidecar, &["one", "two"])?;
    }
    for fault in [Fault::Down, Fault::ServFail, Fault::NoSuchName, Fault::NoRecords] {
        let failures = sidecars.each_ref().map(failures);
        fault.begin(&mut names)?;
        for (sidecar, before) in sidecars.iter().zip(failures) {
            until("a look-up fails", || Ok((self::failures(sidecar) > before).then_some(())))?;
        }
        all_answer(&sidecars, 3 * TTL, &["one", "two"])?;
        // One of the servers that DNS told of ends while it tells nothing.
        two.stop();
        all_answer(&sidecars, TTL, &["one"])?;
        two.run()?;
        redis_cli(two.address, &["set", "who", "two"])?;
        for sidecar in &sidecars {
            reaches(sidecar, &["one", "two"])?;
        }
        // What is told after the outage counts again.
        fault.end(&mut names, &MEMBERS[1..])?;
        for sidecar in &sidecars {
            reaches(sidecar, &["two"])?;
        }
        names.serve(&MEMBERS)?;
        for sidecar in &sidecars {
            reaches(sidecar, &["one", "two"])?;
        }
    }
    Ok(())
}

#[test]
fn a_server_with_several_addresses_is_one_and_is_reached_by_any_that_is_left() -> Result<()> {
    if !in_a_namespace("names::a_server_with_several_addresses_is_one_and_is_reached_by_any_that_is_left") {
        return Ok(());
    }
    here(&ADDRESSES)?;
    // Redis listens at the last of several --bind.
    let _one = named("10.0.0.1", "one", &["--bind", "10.0.0.1", "10.0.0.3", "fd00::1"])?;
    let _two = named("10.0.0.2", "two", &[])?;
    let addresses = [
        MEMBERS[0],
        "cache.test. 1 IN A 10.0.0.3",
        "cache.test. 1 IN AAAA fd00::1",
        MEMBERS[1],
        "2.0.0.10.in-addr.arpa. 1 IN PTR two.test.",
    ];
    let six = format!("1.{}0.0.d.f.ip6.arpa. 1 IN PTR one.test.", "0.".repeat(27));
    let one_server = [
        "1.0.0.10.in-addr.arpa. 1 IN PTR one.test.",
        // The case of a name says nothing.
        "3.0.0.10.in-addr.arpa. 1 IN PTR ONE.test.",
        &six,
    ];
    let names = Names::start(SERVER.parse()?, &[&addresses[..], &one_server].concat())?;
    let sidecars = [
        listener("{host: cache.test, port: 6379, groupBy: ReverseName}")?,
        LocalSidecar::l4(&["ring_domain=cache.test:6379"])?,
    ];
    let half = BTreeMap::from([("one".to_owned(), 10), ("two".to_owned(), 10)]);
    for sidecar in &sidecars {
        let answers = asked(sidecar.address, 20)?;
        ensure!(answers == half, "two servers, one after the other: {answers:?}\n{}", sidecar.log());
    }
    // The address that is asked first closes, then all but the last one.
    for bound in ["10.0.0.3 fd00::1", "fd00::1"] {
        redis_cli("10.0.0.3:6379".parse()?, &["config", "set", "bind", bound])?;
        for sidecar in &sidecars {
            let end = Instant::now() + 3 * TTL;
            while Instant::now() < end {
                ensure!(asked(sidecar.address, 20)? == half, "by {bound}");
            }
        }
    }
    // Of the same addresses, each a server of its own, those of `one` take three of four where all of them are live.
    redis_cli("[fd00::1]:6379".parse()?, &["config", "set", "bind", "10.0.0.1 10.0.0.3 fd00::1"])?;
    names.serve(&addresses)?;
    for sidecar in &sidecars {
        until("four servers", || {
            let answers = asked(sidecar.address, 20)?;
            Ok((answers == BTreeMap::from([("one".to_owned(), 15), ("two".to_owned(), 5)])).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn srv_records_give_ports_and_weights() -> Result<()> {
    if !in_a_namespace("names::srv_records_give_ports_and_weights") {
        return Ok(());
    }
    here(&ADDRESSES)?;
    let _heavy = at("10.0.0.1:7001", "heavy", &[])?;
    let _light = at("10.0.0.1:7002", "light", &[])?;
    let _spare = at("10.0.0.1:7003", "spare", &[])?;
    let records = [
        MEMBERS[0],
        "_redis._tcp.cache.test. 1 IN SRV 10 3 7001 cache.test.",
        "_redis._tcp.cache.test. 1 IN SRV 10 1 7002 cache.test.",
        "_redis._tcp.cache.test. 1 IN SRV 20 9 7003 cache.test.",
    ];
    let names = Names::start(SERVER.parse()?, &records)?;
    let sidecar = listener("{host: _redis._tcp.cache.test, record: Srv}")?;
    let answers = asked(sidecar.address, 40)?;
    // Each thread of the sidecar takes turns for itself.
    ensure!(answers.len() == 2 && (26..=34).contains(&answers["heavy"]), "three of four: {answers:?}");
    names.serve(&[records[0], records[3]])?;
    reaches(&sidecar, &["spare"])?;
    Ok(())
}

/// A listener in front of this name, which takes its servers one after the other.
fn listener(dns: &str) -> Result<LocalSidecar> {
    LocalSidecar::with(|port| {
        format!(
            "tcp:\n- name: cache\n  port: {port}\n  balance: RoundRobin\n  backends: [{{dns: {dns}}}]\n  health: {{interval: 1s, timeout: 1s}}\n"
        )
    })
}

/// A Redis that tells its name.
fn named(ip: &str, name: &str, arguments: &[&str]) -> Result<Redis> {
    at(&format!("{ip}:6379"), name, arguments)
}

fn at(address: &str, name: &str, arguments: &[&str]) -> Result<Redis> {
    let server = Redis::at(address.parse()?, arguments)?;
    redis_cli(server.address, &["set", "who", name])?;
    Ok(server)
}

/// Look-ups that have failed after one that had not, or otherwise than the one before.
fn failures(sidecar: &LocalSidecar) -> usize {
    sidecar.log().matches("the last good backends stay").count()
}

/// Which servers answer so many new connections, each how often.
fn asked(at: SocketAddr, times: usize) -> Result<BTreeMap<String, usize>> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        *answers.entry(redis_cli(at, &["get", "who"])?).or_default() += 1;
    }
    Ok(answers)
}

/// Opens connections until these servers answer, and no others.
fn reaches(sidecar: &LocalSidecar, servers: &[&str]) -> Result<()> {
    until("these servers and no others", || {
        let answers = asked(sidecar.address, 10)?;
        ensure!(answers.keys().eq(servers), "{answers:?}, and not {servers:?}; its log:\n{}", sidecar.log());
        Ok(Some(()))
    })
}

/// Opens connections one after the other for some time: each one is answered, by these servers.
fn all_answer(sidecars: &[LocalSidecar], time: Duration, servers: &[&str]) -> Result<()> {
    let end = Instant::now() + time;
    while Instant::now() < end {
        for sidecar in sidecars {
            let answers = asked(sidecar.address, 10)?;
            ensure!(
                answers.keys().eq(servers),
                "{answers:?}, and not {servers:?}; its log:\n{}",
                sidecar.log()
            );
        }
    }
    Ok(())
}
