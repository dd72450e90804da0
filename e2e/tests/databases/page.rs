//! The page about TCP and UDP: what it shows is taken, and does what it says.

use std::{collections::BTreeSet, fs, net::SocketAddr, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use crds::policy::SidecarPolicySpec;
use e2e::{LocalSidecar, built, free_ports};
use serde_yaml::Value;

use crate::support::{Authority, Names, Postgres, Redis, dig, here, in_a_namespace, psql, redis_cli, run};

const PAGE: &str = include_str!("../../../docs/tcp-and-udp.md");
const SOMEWHERE: &str = "10.0.0.1:9";

/// The blocks of this language.
fn blocks(language: &str) -> Vec<&'static str> {
    let blocks = PAGE.split("```").skip(1).step_by(2);
    blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n')).collect()
}

/// Each example, and what it is as the `spec` of a policy. A list is that of the TCP listeners; a part of a listener is put into the
/// first one of the whole example before it.
fn examples() -> Result<Vec<(String, Value)>> {
    let (mut examples, mut whole) = (Vec::new(), Value::Null);
    for text in blocks("yaml").into_iter().flat_map(alternatives) {
        let value: Value = serde_yaml::from_str(&text).with_context(|| text.clone())?;
        let is_whole =
            value.is_sequence() || ["spec", "tcp", "udp"].iter().any(|key| value.get(key).is_some());
        let spec = match value {
            Value::Sequence(_) => Value::Mapping([("tcp".into(), value)].into_iter().collect()),
            value if is_whole => value.get("spec").unwrap_or(&value).clone(),
            part => {
                let mut spec = whole.clone();
                let kind = if spec.get("tcp").is_some() { "tcp" } else { "udp" };
                let listener = spec[kind][0].as_mapping_mut().context("no listener comes before")?;
                listener.extend(part.as_mapping().context("no mapping")?.clone());
                spec
            }
        };
        if is_whole {
            whole = spec.clone();
        }
        examples.push((text, spec));
    }
    Ok(examples)
}

/// A block whose lines all give the same field shows one way to have it in each.
fn alternatives(block: &str) -> Vec<String> {
    let fields: BTreeSet<_> =
        block.lines().filter_map(|line| line.split_once(':')).map(|(field, _)| field).collect();
    if fields.len() == 1 && block.lines().count() > 1 {
        return block.lines().map(str::to_owned).collect();
    }
    vec![block.to_owned()]
}

/// Makes of it what a sidecar without a cluster takes: each Service is this server, and Secrets are files of the folder.
fn stand_alone(value: &mut Value, server: &str, folder: &Path) {
    match value {
        Value::Sequence(list) => list.iter_mut().for_each(|item| stand_alone(item, server, folder)),
        Value::Mapping(fields) => {
            if fields.remove("service").is_some() {
                fields.insert("addresses".into(), Value::Sequence(vec![server.into()]));
            }
            for (secret, files) in [
                ("caSecret", &[("caFile", "ca.pem")][..]),
                ("certificateSecret", &[("certificateFile", "server.crt"), ("keyFile", "server.key")]),
                ("passwordSecret", &[("passwordFile", "password")]),
            ] {
                if fields.remove(secret).is_some() {
                    let path = |name| folder.join(name).display().to_string().into();
                    fields.extend(files.iter().map(|&(field, name)| (field.into(), path(name))));
                }
            }
            fields.iter_mut().for_each(|(_, value)| stand_alone(value, server, folder));
        }
        _ => {}
    }
}

/// The first example with such listeners, in front of this server and at a free port.
fn started(kind: &str, server: SocketAddr) -> Result<LocalSidecar> {
    let of_kind = examples()?.into_iter().find(|(_, spec)| spec.get(kind).is_some());
    let (_, mut config) = of_kind.context("no example")?;
    stand_alone(&mut config, &server.to_string(), Path::new("/nowhere"));
    LocalSidecar::with(|port| {
        config[kind][0]["port"] = port.into();
        serde_yaml::to_string(&config).unwrap()
    })
}

#[test]
fn every_example_is_a_policy_and_passes_the_check_without_a_word() -> Result<()> {
    let examples = examples()?;
    ensure!(examples.len() >= 10, "{} examples are found", examples.len());
    let folder = tempfile::tempdir()?;
    let authority = Authority::new()?;
    authority.issue(folder.path(), &["db.example.com"])?;
    fs::copy(authority.file(), folder.path().join("ca.pem"))?;
    fs::write(folder.path().join("password"), "word")?;
    let file = folder.path().join("sidecar.yaml");
    for (text, mut spec) in examples {
        serde_yaml::from_value::<SidecarPolicySpec>(spec.clone()).with_context(|| text.clone())?;
        stand_alone(&mut spec, SOMEWHERE, folder.path());
        fs::write(&file, serde_yaml::to_string(&spec)?)?;
        let output = Command::new(built("sidecar")?).arg("check").arg("--config").arg(&file).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() && said.is_empty(), "{text}\n{said}");
    }
    Ok(())
}

#[test]
fn the_first_example_brings_psql_to_its_server() -> Result<()> {
    let server = Postgres::primary()?;
    let sidecar = started("tcp", server.address)?;
    ensure!(psql(sidecar.address, "select inet_server_port()")? == server.address.port().to_string());
    Ok(())
}

#[test]
fn the_example_of_udp_brings_dig_to_its_server() -> Result<()> {
    let [port] = free_ports();
    let server = Names::start(([127, 0, 0, 1], port).into(), &["who.test. 0 IN TXT one"])?;
    let sidecar = started("udp", server.address)?;
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
