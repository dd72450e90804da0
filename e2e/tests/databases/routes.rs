//! One port for several servers, by the name that a client's TLS asks for.

use std::{net::SocketAddr, path::Path};

use anyhow::{Result, ensure};
use e2e::{LocalSidecar, free_ports};
use tempfile::TempDir;

use crate::support::{Authority, Redis, addresses, redis_cli, run};

const NO_ROUTE: &str = "sidecar_tcp_failed_total{listener=\"caches\",cause=\"NoRoute\"";

/// A server that speaks TLS as this name at another port of its own, and knows who it is.
struct Secure {
    server: Redis,
    tls: SocketAddr,
    _files: TempDir,
}

impl Secure {
    fn start(authority: &Authority, name: &str) -> Result<Self> {
        let files = tempfile::tempdir()?;
        authority.issue(files.path(), &[name])?;
        let [port] = free_ports();
        let path = |file: &str| files.path().join(file).display().to_string();
        let server = Redis::with(&[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &path("server.crt"),
            "--tls-key-file",
            &path("server.key"),
            "--tls-auth-clients",
            "no",
        ])?;
        redis_cli(server.address, &["set", "who", name])?;
        Ok(Self { server, tls: ([127, 0, 0, 1], port).into(), _files: files })
    }
}

/// Who answers a client that asks for this name, after it has seen the server's certificate.
fn who(at: SocketAddr, ca: &Path, name: &[&str]) -> Result<String> {
    let ca = ca.display().to_string();
    redis_cli(at, &[&["--tls", "--cacert", &ca], name, &["get", "who"]].concat())
}

/// The certificate that a client is shown who asks for this name is verified to be of it.
fn verified(at: SocketAddr, ca: &Path, name: &str) -> Result<String> {
    let (at, ca) = (at.to_string(), ca.display().to_string());
    let asking = ["s_client", "-connect", &at, "-servername", name, "-verify_hostname", name];
    run("openssl", &[&asking[..], &["-CAfile", &ca, "-verify_return_error", "-brief"]].concat())
}

#[test]
fn clients_reach_the_server_of_the_name_that_they_ask_for_and_see_its_own_certificate() -> Result<()> {
    let authority = Authority::new()?;
    let ca = authority.file();
    let (a, b) = (Secure::start(&authority, "a.test")?, Secure::start(&authority, "b.below.test")?);
    let others = Redis::start()?;
    redis_cli(others.address, &["set", "who", "others"])?;
    let file = |port: u16, rest: &str| {
        let (a, b) = (addresses(&[a.tls]), addresses(&[b.tls]));
        format!(
            "tcp:\n- name: caches\n  port: {port}\n{rest}  routes:\n  - {{name: a, serverNames: [a.test], backends: [{a}]}}\n  - {{name: below, serverNames: [\"*.below.test\"], backends: [{b}]}}\n"
        )
    };
    let open =
        LocalSidecar::with(|port| file(port, &format!("  backends: [{}]\n", addresses(&[others.address]))))?;
    let closed = LocalSidecar::with(|port| file(port, ""))?;
    for sidecar in [&open, &closed] {
        for (name, server) in [("a.test", &a), ("b.below.test", &b)] {
            for _ in 0..3 {
                ensure!(who(sidecar.address, &ca, &["--sni", name])? == name);
            }
            verified(sidecar.address, &ca, name)?;
            let connected = format!(
                "sidecar_tcp_backend_connected_total{{listener=\"caches\",backend=\"{}\"",
                server.tls
            );
            ensure!(sidecar.metric(&connected)? >= 4.0, "{name}");
            ensure!(redis_cli(server.server.address, &["get", "who"])? == name);
        }
    }
    ensure!(redis_cli(open.address, &["get", "who"])? == "others", "who speaks no TLS");
    ensure!(open.metric(NO_ROUTE)? == 0.0);

    for sni in [&["--sni", "other.test"][..], &[]] {
        ensure!(who(closed.address, &ca, sni).is_err(), "no route is for {sni:?}");
    }
    ensure!(redis_cli(closed.address, &["get", "who"]).is_err(), "nor for who speaks no TLS");
    // Some of them try twice.
    ensure!(closed.metric(NO_ROUTE)? >= 3.0, "each is counted");
    Ok(())
}
