//! TLS that PostgreSQL's clients ask for, and that its servers are asked for.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context, Result, ensure};
use e2e::LocalSidecar;
use tempfile::TempDir;

use crate::support::{Authority, Postgres, addresses, psql, psql_with, until};

const NAME: &str = "db.test";
const OWN_TLS: &str = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
const HANDSHAKE: &str = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Handshake\"";
const CONNECT: &str = "sidecar_tcp_failed_total{listener=\"db\",cause=\"Connect\"";
const FAILURES: &str = "sidecar_tcp_connect_failures_total{listener=\"db\"";

/// A listener with these fields.
fn listener(port: u16, backend: SocketAddr, fields: &str) -> String {
    let backends = addresses(&[backend]);
    format!("tcp:\n- {{name: db, port: {port}, backends: [{backends}], {fields}}}\n")
}

/// `tls` with a certificate of that folder.
fn ending(folder: &Path, more: &str) -> String {
    let folder = folder.display();
    format!(
        "tls: {{certificateFile: {folder}/server.crt, keyFile: {folder}/server.key, startTls: Postgres{more}}}"
    )
}

/// `backendTls` with servers of this name.
fn beginning(authority: &Authority, name: &str) -> String {
    format!("backendTls: {{caFile: {}, serverName: {name}, startTls: Postgres}}", authority.file().display())
}

/// What a client asks for that knows the authority, and verifies this name.
fn verifying(authority: &Authority, name: &str) -> String {
    format!("host={name} hostaddr=127.0.0.1 sslmode=verify-full sslrootcert={}", authority.file().display())
}

fn certificate(authority: &Authority) -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    authority.issue(folder.path(), &[NAME])?;
    Ok(folder)
}

#[test]
fn psql_that_verifies_the_name_gets_all_its_rows_within_tls_that_ends_at_the_sidecar() -> Result<()> {
    let (authority, server) = (Authority::new()?, Postgres::with("host all app all scram-sha-256", None)?);
    psql(server.address, "create role app login password 'word'")?;
    let folder = certificate(&authority)?;
    let sidecar = LocalSidecar::with(|port| listener(port, server.address, &ending(folder.path(), "")))?;
    let settings = verifying(&authority, NAME);
    let asked = |statement| psql_with(sidecar.address, &settings, statement);
    ensure!(asked("\\conninfo")?.contains("SSL connection (protocol: TLSv1.3"));
    ensure!(asked(OWN_TLS)? == "f", "the server speaks plain text with the sidecar");
    let rows = "select n, repeat(md5(n::text), n % 17) from generate_series(1, 50000) n";
    ensure!(asked(rows)? == psql(server.address, rows)?, "other rows than those of the server");
    let whoever = psql_with(sidecar.address, &format!("{settings} user=app password=word"), "select user")?;
    ensure!(whoever == "app", "a password of SCRAM is taken within TLS that the server knows not of");

    let error = psql_with(sidecar.address, &verifying(&authority, "other.test"), "select 1").unwrap_err();
    ensure!(error.to_string().contains("does not match host name \"other.test\""), "{error}");
    Ok(())
}

#[test]
fn psql_without_tls_is_refused_in_words_or_served_as_plain_text_says() -> Result<()> {
    let (authority, server) = (Authority::new()?, Postgres::primary()?);
    let folder = certificate(&authority)?;
    let file = |more: &str| {
        let fields = ending(folder.path(), more);
        move |port| listener(port, server.address, &fields)
    };
    let sidecar = LocalSidecar::with(file(""))?;
    let asked = |mode: &str| psql_with(sidecar.address, &format!("sslmode={mode}"), "select 1");
    let error = asked("disable").unwrap_err();
    ensure!(error.to_string().contains("connect with sslmode=require"), "{error}");
    // Some clients try again within TLS by themselves.
    for mode in ["allow", "prefer", "require"] {
        ensure!(asked(mode)? == "1", "{mode}");
    }
    until("it is counted", || Ok((sidecar.metric(HANDSHAKE)? == 2.0).then_some(())))?;

    sidecar.follows(&file(", plainText: Allow")(sidecar.address.port()))?;
    until("plain text is served", || asked("disable").map(Some))?;
    for mode in ["allow", "prefer", "require"] {
        ensure!(asked(mode)? == "1", "{mode}");
    }
    Ok(())
}

#[test]
fn psql_without_tls_reaches_a_server_that_takes_nothing_else_and_has_the_right_name() -> Result<()> {
    let authority = Authority::new()?;
    let rules =
        "hostssl all app all scram-sha-256\nhostssl all postgres all trust\nhost all all 127.0.0.1/32 reject";
    let server = Postgres::with(rules, Some((&authority, &[NAME])))?;
    ensure!(psql_with(server.address, "sslmode=disable", "select 1").is_err(), "it takes TLS alone");
    psql(server.address, "create role app login password 'word'")?;
    let file = |name: &str| {
        let fields = beginning(&authority, name);
        move |port| listener(port, server.address, &fields)
    };
    let sidecar = LocalSidecar::with(file(NAME))?;
    for mode in ["disable", "allow", "prefer"] {
        let settings = format!("sslmode={mode}");
        ensure!(psql_with(sidecar.address, &settings, OWN_TLS)? == "t", "{mode}");
        // Servers with TLS offer SCRAM bound to it, which is not the client's TLS.
        let settings = format!("sslmode={mode} user=app password=word");
        ensure!(psql_with(sidecar.address, &settings, "select user")? == "app", "{mode}");
        let settings = format!("sslmode={mode} user=app password=wrong");
        ensure!(psql_with(sidecar.address, &settings, "select user").is_err(), "{mode}");
    }
    let rows = "select n, repeat(md5(n::text), n % 17) from generate_series(1, 50000) n";
    ensure!(
        psql(sidecar.address, rows)? == psql(server.address, rows)?,
        "other rows than those of the server"
    );
    let error = psql_with(sidecar.address, "sslmode=require", "select 1").unwrap_err();
    ensure!(error.to_string().contains("server does not support SSL"), "{error}");

    sidecar.follows(&file("other.test")(sidecar.address.port()))?;
    let error = until("a server of another name is refused", || Ok(psql(sidecar.address, "select 1").err()))?;
    let told = error.to_string();
    ensure!(told.contains("no server can be reached through the sidecar's listener db"), "{told}");
    // In words that name the name: for the application, and for who reads the log.
    until("the checks say why", || Ok(sidecar.log().contains("backend is down").then_some(())))?;
    let log = sidecar.log();
    let line = log.lines().find(|line| line.contains("backend is down")).context("no line")?;
    ensure!(line.contains("other.test"), "{line}");
    until("it is counted", || {
        let error = psql(sidecar.address, "select 1").err().context("it is served")?.to_string();
        ensure!(error.contains("other.test"), "{error}");
        Ok((sidecar.metric(CONNECT)? > 0.0 && sidecar.metric(FAILURES)? > 0.0).then_some(()))
    })
}

#[test]
fn a_password_is_bound_to_tls_where_both_sides_show_one_certificate_and_else_where_the_client_does_not_ask()
-> Result<()> {
    let authority = Authority::new()?;
    let server = Postgres::with("hostssl all app all scram-sha-256", Some((&authority, &[NAME])))?;
    psql(server.address, "create role app login password 'word'")?;
    let (of_server, own) = (server.certificate()?, certificate(&authority)?);
    let [same, other] = [&of_server, &own].map(|folder| {
        let fields = [ending(folder.path(), ""), beginning(&authority, NAME)].join(", ");
        LocalSidecar::with(|port| listener(port, server.address, &fields))
    });
    let (same, other) = (same?, other?);
    let asked = |sidecar: &LocalSidecar, binding: &str| {
        let settings = verifying(&authority, NAME);
        let settings = format!("{settings} user=app password=word channel_binding={binding}");
        psql_with(sidecar.address, &settings, "select user")
    };
    for binding in ["require", "prefer", "disable"] {
        ensure!(asked(&same, binding)? == "app", "{binding}");
    }
    let error = asked(&other, "prefer").unwrap_err();
    ensure!(error.to_string().contains("SCRAM channel binding check failed"), "{error}");
    ensure!(asked(&other, "disable")? == "app");
    Ok(())
}
