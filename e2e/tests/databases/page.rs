//! The page about TCP and UDP: what it shows is taken, and does what it says.

use std::{net::SocketAddr, process::Command};

use anyhow::{Context, Result, ensure};
use crds::policy::SidecarPolicySpec;
use e2e::{LocalSidecar, built};
use serde_yaml::Value;

use crate::support::{Names, Postgres, Redis, dig, here, in_a_namespace, psql, redis_cli, run};

const PAGE: &str = include_str!("../../../docs/tcp-and-udp.md");
const SOMEWHERE: &str = "10.0.0.1:9";

/// The blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// An example as the `spec` of a policy. One that shows a part of a listener is put into that of the first example.
fn spec(example: &str) -> Result<Value> {
    let value: Value = serde_yaml::from_str(example)?;
    if let Some(spec) = value.get("spec") {
        return Ok(spec.clone());
    }
    let mut whole = spec(blocks("yaml")[0])?;
    let listener = whole["tcp"][0].as_mapping_mut().context("the first example has a TCP listener")?;
    listener.extend(value.as_mapping().context("no mapping")?.clone());
    Ok(whole)
}

/// A file for a sidecar without a cluster: Services are these servers.
fn standalone(mut spec: Value, servers: &str) -> Result<Value> {
    for kind in ["tcp", "udp"] {
        for listener in spec.get_mut(kind).and_then(Value::as_sequence_mut).into_iter().flatten() {
            for backend in listener["backends"].as_sequence_mut().context("a list")? {
                if backend.get("service").is_some() {
                    *backend = serde_yaml::from_str(&format!("{{addresses: [\"{servers}\"]}}"))?;
                }
            }
        }
    }
    Ok(spec)
}

/// One of the examples, in front of this server and at a free port.
fn started(example: &str, kind: &str, server: SocketAddr) -> Result<LocalSidecar> {
    let mut config = standalone(spec(example)?, &server.to_string())?;
    LocalSidecar::with(|port| {
        config[kind][0]["port"] = port.into();
        serde_yaml::to_string(&config).unwrap()
    })
}

#[test]
fn every_example_is_a_policy_and_passes_the_check_without_a_word() -> Result<()> {
    let examples = blocks("yaml");
    ensure!(examples.len() >= 4, "{} examples are found", examples.len());
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("sidecar.yaml");
    for example in examples {
        let spec = spec(example)?;
        serde_yaml::from_value::<SidecarPolicySpec>(spec.clone()).with_context(|| example.to_owned())?;
        std::fs::write(&file, serde_yaml::to_string(&standalone(spec, SOMEWHERE)?)?)?;
        let output = Command::new(built("sidecar")?).arg("check").arg("--config").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{example}\n{said}");
    }
    Ok(())
}

#[test]
fn the_first_example_brings_psql_to_its_server() -> Result<()> {
    let server = Postgres::primary()?;
    let sidecar = started(blocks("yaml")[0], "tcp", server.address)?;
    ensure!(psql(sidecar.address, "select inet_server_port()")? == server.address.port().to_string());
    Ok(())
}

#[test]
fn the_example_of_udp_brings_dig_to_its_server() -> Result<()> {
    let [port] = e2e::free_ports();
    let server = Names::start(([127, 0, 0, 1], port).into(), &["who.test. 0 IN TXT one"])?;
    let udp = blocks("yaml").into_iter().find(|example| example.contains("udp:")).context("no example")?;
    let sidecar = started(udp, "udp", server.address)?;
    ensure!(dig(sidecar.address, &["who.test", "TXT", "+short"])? == "\"one\"");
    Ok(())
}

#[test]
fn the_command_lines_serve_as_they_are_written() -> Result<()> {
    if !in_a_namespace("page::the_command_lines_serve_as_they_are_written") {
        return Ok(());
    }
    here(&["10.0.0.1/32", "10.0.0.2/32"])?;
    let _names = Names::start("127.0.0.1:53".parse()?, &["db.example.com. 1 IN A 10.0.0.1"])?;
    // Which protocol it is does not matter.
    let _servers = ["10.0.0.1:5432", "10.0.0.1:6379", "10.0.0.2:6379"]
        .map(|address| Redis::at(address.parse().unwrap(), &[]).unwrap());
    let lines = blocks("console").into_iter().flat_map(str::lines);
    let commands: Vec<Vec<&str>> = lines
        .filter_map(|line| line.strip_prefix("$ sidecar l4 ")?.split('#').next())
        .map(|arguments| arguments.split_whitespace().collect())
        .collect();
    let (last, servers) = commands.split_last().context("no command lines")?;
    ensure!(servers.len() == 2 && last == &["--health-check-uds"], "{commands:?}");
    for arguments in servers {
        let sidecar = LocalSidecar::l4_at(arguments[0].parse()?, &arguments[1..])?;
        ensure!(redis_cli(sidecar.address, &["ping"])? == "PONG");
        let program = built("sidecar")?;
        run(program.to_str().context("no text")?, &["l4", last[0]])?;
    }
    Ok(())
}
