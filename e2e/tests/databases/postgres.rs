//! PostgreSQL through a TCP listener: new connections reach a live member, whatever the others do.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use e2e::{LocalSidecar, free_ports, interpreter};
use serde_json::Value;

use crate::support::{Postgres, addresses, psql, run, until};

/// Some seconds of 8 clients.
const TRANSACTIONS: usize = 200;

/// A listener in front of these servers, one after the other, which are checked often.
fn listener(backends: &[SocketAddr]) -> Result<LocalSidecar> {
    let backends = addresses(backends);
    LocalSidecar::with(|port| {
        format!(
            "tcp:\n- name: db\n  port: {port}\n  balance: RoundRobin\n  backends: [{backends}]\n  health: {{interval: 1s, timeout: 1s}}\n"
        )
    })
}

/// Which servers answer so many new connections, each how often.
fn asked(at: SocketAddr, times: usize) -> Result<BTreeMap<u16, usize>> {
    let mut answers = BTreeMap::new();
    for _ in 0..times {
        *answers.entry(psql(at, "select inet_server_port()")?.parse()?).or_default() += 1;
    }
    Ok(answers)
}

#[test]
fn psql_reaches_a_live_member_when_one_stops_and_both_when_it_is_back() -> Result<()> {
    let primary = Postgres::primary()?;
    let mut replica = primary.replica()?;
    let (one, two) = (primary.address, replica.address);
    let file = listener(&[one, two])?;
    let command_line = LocalSidecar::l4(&[&format!("backends={one},{two}")])?;
    for sidecar in [file, command_line] {
        let both = asked(sidecar.address, 10)?;
        ensure!(both == BTreeMap::from([(one.port(), 5), (two.port(), 5)]), "in turn: {both:?}");
        replica.stop();
        let left = asked(sidecar.address, 10)?;
        ensure!(left == BTreeMap::from([(one.port(), 10)]), "the one that lives: {left:?}");
        replica.run()?;
        until("the one that is back gets connections", || {
            Ok(asked(sidecar.address, 2)?.contains_key(&two.port()).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn psycopg_goes_on_with_its_next_connection_when_a_member_stops() -> Result<()> {
    let mut members = BTreeMap::new();
    let primary = Postgres::primary()?;
    let replica = primary.replica()?;
    let sidecar = listener(&[primary.address, replica.address])?;
    members.insert(primary.address.port(), primary);
    members.insert(replica.address.port(), replica);
    let mut client = Client::start(sidecar.address)?;
    let (first, connects) = client.asks(50)?;
    ensure!(connects == 1, "one connection is enough");
    members.remove(&first).context("a port of neither")?;
    let (second, connects) = client.asks(50)?;
    ensure!(connects == 2 && members.contains_key(&second), "it was {connects} connections, to {second}");
    Ok(())
}

#[test]
fn pgbench_has_no_failed_transaction_while_a_backend_is_dead() -> Result<()> {
    let primary = Postgres::primary()?;
    pgbench(primary.address, &["-i", "-q"])?;
    let replica = primary.replica()?;
    until("the replica has the tables", || {
        let rows = psql(replica.address, "select count(*) from pgbench_accounts")?;
        Ok((rows == "100000").then_some(()))
    })?;
    let [dead] = free_ports();
    let dead = SocketAddr::from(([127, 0, 0, 1], dead));

    let readable = listener(&[primary.address, dead, replica.address])?;
    // With connections that are kept, and with a new one for each transaction.
    for more in [&[][..], &["-C"]] {
        let load = ["-n", "-S", "-c", "8", "-j", "2", "-t", &TRANSACTIONS.to_string()];
        all_well(&pgbench(readable.address, &[&load, more].concat())?, 8)?;
    }
    for server in [&primary, &replica] {
        let up =
            format!("sidecar_tcp_backend_connected_total{{listener=\"db\",backend=\"{}\"", server.address);
        ensure!(readable.metric(&up)? > 0.0, "{} had a share", server.address);
    }

    let writable = listener(&[dead, primary.address])?;
    let load = ["-n", "-c", "4", "-j", "2", "-t", &TRANSACTIONS.to_string(), "-C"];
    all_well(&pgbench(writable.address, &load)?, 4)?;
    let rows = psql(primary.address, "select count(*) from pgbench_history")?;
    ensure!(rows == (4 * TRANSACTIONS).to_string(), "each transaction is there once: {rows}");
    Ok(())
}

#[test]
fn rows_of_any_size_are_those_of_the_server() -> Result<()> {
    let server = Postgres::primary()?;
    let sidecar = listener(&[server.address])?;
    // Some MiB, so that both directions change from copying to splicing on the way.
    let rows: String = (0..100_000).map(|n| format!("{n}\t{}\n", "word ".repeat(n % 17))).collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("rows");
    fs::write(&file, &rows)?;
    psql(server.address, "create table t(n int, words text)")?;
    psql(sidecar.address, &format!("\\copy t from '{}'", file.display()))?;
    let sum = "select md5(string_agg(n || ':' || words, ',' order by n)) from t";
    ensure!(psql(sidecar.address, sum)? == psql(server.address, sum)?);
    let back = psql(sidecar.address, "copy (select * from t order by n) to stdout")?;
    ensure!(back == rows.trim_end(), "{} bytes came back, of {}", back.len(), rows.len());
    Ok(())
}

fn pgbench(at: SocketAddr, arguments: &[&str]) -> Result<String> {
    let (ip, port) = (at.ip().to_string(), at.port().to_string());
    run("pgbench", &[arguments, &["-h", &ip, "-p", &port, "-U", "postgres", "postgres"]].concat())
}

/// Every transaction of so many clients was made.
fn all_well(report: &str, clients: usize) -> Result<()> {
    let all = clients * TRANSACTIONS;
    let processed = format!("number of transactions actually processed: {all}/{all}\n");
    ensure!(report.contains(&processed), "{report}");
    ensure!(report.contains("number of failed transactions: 0 (0.000%)"), "{report}");
    Ok(())
}

/// `postgres.py`: psycopg with one connection.
struct Client {
    process: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    fn start(at: SocketAddr) -> Result<Self> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/databases/postgres.py");
        let mut process = Command::new(interpreter()?)
            .arg(script)
            .args([at.ip().to_string(), at.port().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdin = process.stdin.take().context("it has no stdin")?;
        let stdout = BufReader::new(process.stdout.take().context("it has no stdout")?);
        Ok(Self { process, stdin, stdout })
    }

    /// The one server that has answered so many times, and the connections so far.
    fn asks(&mut self, times: usize) -> Result<(u16, u64)> {
        writeln!(self.stdin, "{times}")?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let report: Value = serde_json::from_str(&line).context("it has ended: see its words above")?;
        let [port] = &report["ports"].as_array().context("no ports")?[..] else {
            anyhow::bail!("one connection, and answers of several: {report}");
        };
        Ok((
            u16::try_from(port.as_u64().context("no port")?)?,
            report["connects"].as_u64().context("no count")?,
        ))
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
