//! TCP and UDP listeners: mistakes and defaults.

use e2e::apiserver::ApiServer;
use kube::Api;

use super::{HEAD, apply, refused};

const BACKENDS: &str = "backends: [{service: {name: db, port: 5432}}]";

/// A policy with these lists of listeners.
fn policy(lists: &str) -> String {
    format!("{HEAD}spec:\n{lists}")
}

fn tcp(fields: &str) -> String {
    policy(&format!("  tcp: [{{name: db, port: 5432, {fields}}}]\n"))
}

fn udp(fields: &str) -> String {
    policy(&format!("  udp: [{{name: names, port: 53, {fields}}}]\n"))
}

#[tokio::test]
async fn every_mistake_in_a_listener_of_bytes_or_datagrams_is_refused_at_apply_with_its_path()
-> anyhow::Result<()> {
    let namespace = ApiServer::shared().await.namespace("refused-l4").await?;
    let two = |kinds: [&str; 2], names: [&str; 2], ports: [u16; 2]| {
        let one = |index: usize| {
            let backends = match kinds[index] {
                "http" => "sites: [{name: s, backends: [{addresses: ['10.0.0.1:80']}]}]",
                _ => "backends: [{addresses: ['10.0.0.1:80']}]",
            };
            format!("{{name: {}, port: {}, {backends}}}", names[index], ports[index])
        };
        if kinds[0] == kinds[1] {
            policy(&format!("  {}: [{}, {}]\n", kinds[0], one(0), one(1)))
        } else {
            policy(&format!("  {}: [{}]\n  {}: [{}]\n", kinds[0], one(0), kinds[1], one(1)))
        }
    };
    let dns = |fields: &str| tcp(&format!("backends: [{{dns: {{host: db.example.com, {fields}}}}}]"));
    let route = |names: &str, fields: &str| {
        tcp(&format!("routes: [{{name: r, serverNames: [{names}], {BACKENDS}}}], {fields}"))
    };
    let cases = [
        ("no backends", tcp("backends: []"), "a listener has backends"),
        ("no backends and no routes", tcp("routes: []"), "spec.tcp[0].routes"),
        (
            "routes by TLS that is opened",
            route("'*.a'", "tls: {selfSigned: {hosts: [a]}}"),
            "goes through unopened",
        ),
        ("routes of PostgreSQL", route("a", "protocol: Postgres"), "goes through unopened"),
        (
            "a server name in two routes",
            tcp(&format!(
                "routes: [{{name: r, serverNames: [a, b], {BACKENDS}}}, {{name: s, serverNames: [b], {BACKENDS}}}], backends: []"
            )),
            "stands in two routes",
        ),
        ("a route by no name", route("", "backends: []"), "routes[0].serverNames"),
        ("a route by a star in a name", route("'a.*.b'", "backends: []"), "routes[0].serverNames[0]"),
        ("an unknown protocol", tcp(&format!("protocol: MySQL, {BACKENDS}")), "spec.tcp[0].protocol"),
        (
            "TLS asked for in unknown words",
            tcp(&format!("backendTls: {{startTls: Ldap}}, {BACKENDS}")),
            "spec.tcp[0].backendTls.startTls",
        ),
        (
            "plain text where nobody asks for TLS",
            tcp(&format!("tls: {{selfSigned: {{hosts: [a]}}, plainText: Allow}}, {BACKENDS}")),
            "set startTls too",
        ),
        (
            "TLS asked for without a certificate",
            tcp(&format!("tls: {{startTls: Postgres}}, {BACKENDS}")),
            "the certificate comes from",
        ),
        ("admin port", tcp(BACKENDS).replace("5432, b", "15470, b"), "choose another"),
        ("port 0", udp(BACKENDS).replace("port: 53,", "port: 0,"), "spec.udp[0].port"),
        ("no port", tcp(BACKENDS).replace("port: 5432, b", "b"), "a listener has a port"),
        ("one port twice", two(["tcp", "tcp"], ["a", "b"], [9000, 9000]), "give each its own port"),
        ("one port twice by UDP", two(["udp", "udp"], ["a", "b"], [9000, 9000]), "give each its own port"),
        (
            "a port of HTTP",
            two(["http", "tcp"], ["a", "b"], [9000, 9000]),
            "cannot share one address and port",
        ),
        ("a name of HTTP", two(["http", "tcp"], ["a", "a"], [9000, 9001]), "need different names"),
        ("a name of TCP", two(["tcp", "udp"], ["a", "a"], [9000, 9001]), "need different names"),
        ("a name of HTTP by UDP", two(["http", "udp"], ["a", "a"], [9000, 9001]), "need different names"),
        ("unknown balance", tcp(&format!("balance: LeastRequest, {BACKENDS}")), "spec.tcp[0].balance"),
        ("no time to connect", tcp(&format!("timeouts: {{connect: 0s}}, {BACKENDS}")), "longer than zero"),
        ("no user time-out", tcp(&format!("timeouts: {{user: 0s}}, {BACKENDS}")), "longer than zero"),
        (
            "no keep-alive",
            tcp(&format!("keepAlive: {{after: 0s}}, {BACKENDS}")),
            "after and interval are longer",
        ),
        ("no probes", tcp(&format!("keepAlive: {{probes: 0}}, {BACKENDS}")), "spec.tcp[0].keepAlive.probes"),
        (
            "moving none",
            tcp(&format!("rebalance: {{connectionsPerSecond: 0}}, {BACKENDS}")),
            "connectionsPerSecond",
        ),
        (
            "moving what is busy",
            tcp(&format!("rebalance: {{quiet: 0s}}, {BACKENDS}")),
            "quiet is longer than zero",
        ),
        (
            "moving what must stay",
            tcp(&format!("balance: SourceHash, rebalance: {{}}, {BACKENDS}")),
            "remove rebalance",
        ),
        (
            "unknown format",
            tcp(&format!("accessLog: {{format: Xml}}, {BACKENDS}")),
            "spec.tcp[0].accessLog.format",
        ),
        (
            "no sample",
            udp(&format!("accessLog: {{sampleOneIn: 0}}, {BACKENDS}")),
            "spec.udp[0].accessLog.sampleOneIn",
        ),
        ("a port of too many", udp(BACKENDS).replace("port: 53,", "port: 65536,"), "spec.udp[0].port"),
        ("no address", tcp(&format!("address: localhost, {BACKENDS}")), "spec.tcp[0].address"),
        (
            "no address of a backend",
            tcp("backends: [{addresses: ['10.0.0.1']}]"),
            "spec.tcp[0].backends[0].addresses[0]",
        ),
        ("no tries", tcp(&format!("connectTries: 0, {BACKENDS}")), "spec.tcp[0].connectTries"),
        ("a check without a path", tcp(&format!("health: {{http: {{}}}}, {BACKENDS}")), "health.http.path"),
        (
            "two ways to ask",
            tcp(&format!("health: {{postgres: {{}}, redis: {{}}}}, {BACKENDS}")),
            "keep one of http, postgres, redis and udp",
        ),
        (
            "datagrams of TCP",
            tcp(&format!("health: {{udp: {{send: a}}}}, {BACKENDS}")),
            "are for udp listeners",
        ),
        (
            "PostgreSQL by UDP",
            udp(&format!("health: {{postgres: {{}}}}, {BACKENDS}")),
            "are for tcp listeners",
        ),
        (
            "datagrams within TLS",
            udp(&format!("health: {{udp: {{send: a}}, tls: {{}}}}, {BACKENDS}")),
            "go within no TLS",
        ),
        (
            "nothing to send",
            udp(&format!("health: {{udp: {{}}}}, {BACKENDS}")),
            "as text in send, or as bytes",
        ),
        (
            "two answers",
            udp(&format!("health: {{udp: {{send: a, expect: b, expectHex: '00'}}}}, {BACKENDS}")),
            "as text in expect, or as bytes",
        ),
        ("half a byte", udp(&format!("health: {{udp: {{sendHex: '0'}}}}, {BACKENDS}")), "health.udp.sendHex"),
        (
            "a role of Redis",
            tcp(&format!("health: {{postgres: {{role: Master}}}}, {BACKENDS}")),
            "health.postgres.role",
        ),
        (
            "a role of PostgreSQL",
            tcp(&format!("health: {{redis: {{role: Primary}}}}, {BACKENDS}")),
            "health.redis.role",
        ),
        (
            "a user without a password",
            tcp(&format!("health: {{redis: {{user: a}}}}, {BACKENDS}")),
            "add passwordSecret",
        ),
        (
            "a name with a line break",
            tcp(&format!("health: {{postgres: {{user: \"a\\nb\"}}}}, {BACKENDS}")),
            "health.postgres.user",
        ),
        (
            "a password",
            tcp(&format!("health: {{redis: {{password: a}}}}, {BACKENDS}")),
            "health.redis.password",
        ),
        ("unknown version", tcp(&format!("proxyProtocol: {{send: V3}}, {BACKENDS}")), "proxyProtocol.send"),
        ("a name without a port", dns("groupBy: ReverseName"), "port is that of every address"),
        ("SRV with a port", dns("record: Srv, port: 5432"), "port is that of every address"),
        ("a socket of UDP", udp(&format!("address: 'unix:/run/a', {BACKENDS}")), "spec.udp[0].address"),
        (
            "a socket in no volume",
            tcp(&format!("address: 'unix:/run/a', {BACKENDS}")).replace("port: 5432, a", "a"),
            "volume",
        ),
    ];
    for (case, text, expected) in cases {
        refused(&namespace, case, &text, expected).await?;
    }
    Ok(())
}

#[tokio::test]
async fn the_same_port_of_tcp_and_udp_is_two_ports_and_defaults_are_filled_in() -> anyhow::Result<()> {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("accepted-l4").await?;
    let text = policy(
        "  tcp: [{name: names-tcp, port: 53, health: {postgres: {passwordSecret: {name: a}}}, backends: [{dns: {host: _dns._tcp.example.com, record: Srv}}]}]\n  udp: [{name: names, port: 53, \
         health: {udp: {send: a}}, backends: [{addresses: ['10.0.0.{1...2}:53']}]}]\n",
    );
    let output = apply(&namespace, &text).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success() && errors.is_empty(), "{errors}");
    let policies: Api<crds::policy::SidecarPolicy> = Api::namespaced(server.client().await?, &namespace);
    let spec = serde_json::to_value(policies.get("data").await?.spec)?;
    for (field, expected) in [
        ("/tcp/0/address", "127.0.0.1"),
        ("/tcp/0/balance", "LeastConnections"),
        ("/tcp/0/timeouts/idle", "1h"),
        ("/tcp/0/keepAlive/after", "30s"),
        ("/tcp/0/health/interval", "5s"),
        ("/tcp/0/health/postgres/user", "sidecar"),
        ("/tcp/0/health/postgres/passwordSecret/key", "password"),
        ("/udp/0/health/timeout", "2s"),
        ("/tcp/0/backendLimits/queueTimeout", "5s"),
        ("/udp/0/sessionTimeout", "1m"),
    ] {
        anyhow::ensure!(spec.pointer(field) == Some(&expected.into()), "{field}: {:?}", spec.pointer(field));
    }
    Ok(())
}
