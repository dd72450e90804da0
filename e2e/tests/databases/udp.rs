//! DNS through a UDP listener: dig asks the sidecar, CoreDNS answers.

use std::{collections::BTreeSet, net::SocketAddr};

use anyhow::{Result, ensure};
use e2e::{LocalSidecar, free_ports};

use crate::support::{Names, addresses, dig, until};

/// Two servers of one port, each of which tells its name, and the port.
fn servers() -> Result<([Names; 2], u16)> {
    let [port] = free_ports();
    let start = |last: u8, name: &str| {
        Names::start(SocketAddr::from(([127, 0, 0, last], port)), &[&format!("who.test. 0 IN TXT {name}")])
    };
    Ok(([start(2, "one")?, start(3, "two")?], port))
}

fn both(servers: &[Names; 2]) -> [SocketAddr; 2] {
    servers.each_ref().map(|server| server.address)
}

/// Who answers so many questions, each of a client of its own that asks up to three times as resolvers do.
fn asked(at: SocketAddr, times: usize) -> Result<BTreeSet<String>> {
    let ask = |_| {
        let said = dig(at, &["who.test", "TXT", "+short", "+tries=3", "+time=1"])?;
        // A comment is of a try before.
        Ok(said.lines().filter(|line| !line.starts_with(";")).map(|name| name.replace('"', "")).collect())
    };
    (0..times).map(ask).collect()
}

fn is(answers: &BTreeSet<String>, names: &[&str]) -> bool {
    answers.iter().eq(names)
}

#[test]
fn dig_is_answered_when_one_of_two_servers_stops_and_by_both_when_it_is_back() -> Result<()> {
    let (mut servers, port) = servers()?;
    let backends = addresses(&both(&servers));
    let sidecar = LocalSidecar::with(|listener| {
        format!(
            "udp:\n- name: names\n  port: {listener}\n  balance: RoundRobin\n  backends: [{backends}]\n  health: {{port: {port}, interval: 1s, timeout: 1s}}\n"
        )
    })?;
    ensure!(is(&asked(sidecar.address, 10)?, &["one", "two"]), "both");
    servers[0].stop();
    ensure!(is(&asked(sidecar.address, 10)?, &["two"]), "the one that lives");
    servers[0].run()?;
    until("the one that is back answers", || {
        Ok(is(&asked(sidecar.address, 4)?, &["one", "two"]).then_some(()))
    })
}

#[test]
fn dig_is_answered_without_checks_too_when_one_of_two_servers_stops() -> Result<()> {
    let (mut servers, _) = servers()?;
    let [one, two] = both(&servers);
    let sidecar = LocalSidecar::l4(&[&format!("backends={one},{two}"), "proto=udp"])?;
    ensure!(is(&asked(sidecar.address, 10)?, &["one", "two"]), "both");
    servers[1].stop();
    ensure!(is(&asked(sidecar.address, 10)?, &["one"]), "the one that lives");
    Ok(())
}

#[test]
fn an_answer_of_several_kib_comes_whole_in_one_datagram() -> Result<()> {
    let [port] = free_ports();
    let records: Vec<String> =
        (0..15).map(|n| format!("long.test. 0 IN TXT \"{n} {}\"", "x".repeat(240))).collect();
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let server = Names::start(SocketAddr::from(([127, 0, 0, 1], port)), &records)?;
    let backends = addresses(&[server.address]);
    let sidecar = LocalSidecar::with(|listener| {
        format!("udp:\n- name: names\n  port: {listener}\n  backends: [{backends}]\n")
    })?;
    // Without TCP, which dig would turn to after a cut answer.
    let question = ["long.test", "TXT", "+short", "+bufsize=4096", "+ignore"];
    let sorted = |answer: String| answer.lines().map(str::to_owned).collect::<BTreeSet<_>>();
    let (direct, through) = (sorted(server.dig(&question)?), sorted(dig(sidecar.address, &question)?));
    ensure!(
        direct.len() == records.len(),
        "{} of {} records without the sidecar",
        direct.len(),
        records.len()
    );
    ensure!(through == direct, "{through:?}");
    Ok(())
}
