//! Redis through a TCP listener.

use std::{fs, net::SocketAddr};

use anyhow::{Result, ensure};
use e2e::LocalSidecar;

use crate::support::{Redis, addresses, redis_cli, run, until};

fn listener(backends: &[SocketAddr]) -> Result<LocalSidecar> {
    let backends = addresses(backends);
    LocalSidecar::with(|port| {
        format!(
            "tcp:\n- name: cache\n  port: {port}\n  backends: [{backends}]\n  health: {{interval: 1s, timeout: 1s}}\n  onBackendDown: Close\n"
        )
    })
}

#[test]
fn redis_benchmark_runs_through_without_an_error() -> Result<()> {
    let server = Redis::start()?;
    let sidecar = listener(&[server.address])?;
    let port = sidecar.address.port().to_string();
    let plain = ["-c", "50", "-n", "20000", "-t", "ping,set,get,incr,lpush,mset"];
    let pipelined = ["-c", "20", "-n", "50000", "-P", "16", "-t", "set,get"];
    let large = ["-c", "8", "-n", "400", "-d", "1000000", "-t", "set,get"];
    let anew = ["-c", "10", "-n", "2000", "-k", "0", "-t", "ping"];
    for load in [&plain[..], &pipelined, &large, &anew] {
        let report = run("redis-benchmark", &[&["-h", "127.0.0.1", "-p", &port, "--csv"], load].concat())?;
        ensure!(!report.to_lowercase().contains("error"), "{load:?}: {report}");
    }
    // What a client has set is what another one gets, without the sidecar.
    let text: String = (0..300_000).map(|n| format!("{n} ")).collect();
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("value");
    fs::write(&file, &text)?;
    run("sh", &["-c", &format!("redis-cli -p {port} -x set long <{}", file.display())])?;
    for at in [server.address, sidecar.address] {
        ensure!(redis_cli(at, &["get", "long"])? == text.trim_end(), "another value at {at}");
    }
    Ok(())
}

#[test]
fn redis_cli_reaches_a_live_member_when_one_stops() -> Result<()> {
    let (mut one, two) = (Redis::start()?, Redis::start()?);
    redis_cli(one.address, &["set", "who", "one"])?;
    redis_cli(two.address, &["set", "who", "two"])?;
    let sidecar = listener(&[one.address, two.address])?;
    let asked =
        || -> Result<Vec<String>> { (0..10).map(|_| redis_cli(sidecar.address, &["get", "who"])).collect() };
    until("both answer", || {
        let answers = asked()?;
        Ok((answers.iter().any(|who| who == "one") && answers.iter().any(|who| who == "two")).then_some(()))
    })?;
    one.stop();
    let answers = asked()?;
    ensure!(answers.iter().all(|who| who == "two"), "{answers:?}");
    one.run()?;
    redis_cli(one.address, &["set", "who", "one"])?;
    until("the one that is back answers", || Ok(asked()?.iter().any(|who| who == "one").then_some(())))
}
