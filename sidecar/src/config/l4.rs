//! Rules of TCP and UDP listeners.

use std::collections::HashMap;

use crds::{
    config::{Backend, L4Balance, PlainText, ServerCheck, TcpListener, UdpCheck, UdpListener},
    units::Address,
};

use crate::l4::ALL;

use super::{
    Problem,
    places::unique,
    rules::{self, not_zero},
};

pub(super) fn tcp(listener: &TcpListener, path: &str, problems: &mut Vec<Problem>) {
    if let Some(tls) = &listener.tls {
        rules::listener_tls(&tls.settings, &format!("{path}.tls"), problems);
        if tls.plain_text == PlainText::Allow && tls.start_tls.is_none() {
            problems.push(Problem::at(
                format!("{path}.tls.plainText"),
                "nobody is asked for TLS here, which begins with the first byte",
                "set startTls too, or remove it",
            ));
        }
    }
    if let Some(tls) = &listener.backend_tls {
        rules::backend_tls(&tls.settings, &format!("{path}.backendTls"), problems);
    }
    routes(listener, path, problems);
    health(&listener.health, path, problems);
    if listener.health.udp.is_some() {
        let path = format!("{path}.health.udp");
        let message = "datagrams are for the checks of udp listeners";
        problems.push(Problem::at(path, message, "ask by http, postgres or redis, or by a connect"));
    }
    rules::outliers(&listener.outlier_detection, path, problems);
    for (field, value) in [
        ("timeouts.connect", listener.timeouts.connect),
        ("timeouts.idle", listener.timeouts.idle),
        ("keepAlive.after", listener.keep_alive.after),
        ("keepAlive.interval", listener.keep_alive.interval),
        ("backendLimits.queueTimeout", listener.backend_limits.queue_timeout),
    ] {
        not_zero(value, &format!("{path}.{field}"), problems);
    }
    if let Some(user) = listener.timeouts.user {
        not_zero(user, &format!("{path}.timeouts.user"), problems);
    }
    rebalance(listener, path, problems);
    backends(&listener.backends, &listener.address.at(listener.port), path, problems);
}

fn routes(listener: &TcpListener, path: &str, problems: &mut Vec<Problem>) {
    if listener.routes.is_empty() && listener.backends.is_empty() {
        let remedy = "add backends (Where the backends come from)";
        problems.push(Problem::at(format!("{path}.backends"), "there are none", remedy));
    }
    let opened = [
        ("tls", listener.tls.is_some()),
        ("backendTls", listener.backend_tls.is_some()),
        ("protocol", listener.protocol.is_some()),
        ("rebalance", listener.rebalance.is_some()),
    ];
    for (field, _) in opened.iter().filter(|(_, set)| *set && !listener.routes.is_empty()) {
        problems.push(Problem::at(
            format!("{path}.{field}"),
            "routes go by TLS that goes through unopened",
            "remove it, or routes",
        ));
    }
    let (own, mut names, mut served) = (listener.address.at(listener.port), HashMap::new(), HashMap::new());
    for (index, route) in listener.routes.iter().enumerate() {
        let path = format!("{path}.routes[{index}]");
        unique(&route.name, &path, "route", &mut names, problems);
        if route.name == ALL {
            problems.push(Problem::at(
                format!("{path}.name"),
                format!("{ALL:?} names the backends that are of no route"),
                "give the route another name",
            ));
        }
        for (index, name) in route.server_names.iter().enumerate() {
            if let Some(first) = served.insert(name, &route.name) {
                problems.push(Problem::at(
                    format!("{path}.serverNames[{index}]"),
                    format!("{name} is of the route {first:?} already"),
                    "write each name into one route",
                ));
            }
        }
        backends(&route.backends, &own, &path, problems);
    }
}

pub(super) fn udp(listener: &UdpListener, path: &str, problems: &mut Vec<Problem>) {
    if let Some(check) = &listener.health {
        health(check, path, problems);
        for (field, set) in [("postgres", check.postgres.is_some()), ("redis", check.redis.is_some())] {
            if set {
                let path = format!("{path}.health.{field}");
                let message = "this is for the checks of tcp listeners";
                problems.push(Problem::at(path, message, "ask by udp or http, or by a connect"));
            }
        }
    }
    not_zero(listener.session_timeout, &format!("{path}.sessionTimeout"), problems);
    backends(&listener.backends, &listener.address.at(listener.port), path, problems);
    for (index, backend) in listener.backends.iter().enumerate() {
        let unix = |address: &Address| address.ip().is_none();
        let patterns = backend.addresses.iter().flatten().enumerate();
        for (address, _) in patterns.filter(|(_, pattern)| pattern.addresses().iter().any(unix)) {
            problems.push(Problem::at(
                format!("{path}.backends[{index}].addresses[{address}]"),
                "datagrams go to no Unix sockets here",
                "write an address such as 10.0.0.1:53",
            ));
        }
    }
}

fn rebalance(listener: &TcpListener, path: &str, problems: &mut Vec<Problem>) {
    let Some(rebalance) = &listener.rebalance else { return };
    not_zero(rebalance.quiet, &format!("{path}.rebalance.quiet"), problems);
    if listener.balance == L4Balance::SourceHash {
        problems.push(Problem::at(
            format!("{path}.rebalance"),
            "balance is SourceHash, by which a client comes back to the same backend",
            "remove it, or choose another balance",
        ));
    }
}

fn health(check: &ServerCheck, path: &str, problems: &mut Vec<Problem>) {
    not_zero(check.interval, &format!("{path}.health.interval"), problems);
    not_zero(check.timeout, &format!("{path}.health.timeout"), problems);
    let path = format!("{path}.health");
    let ways = [
        ("http", check.http.is_some()),
        ("postgres", check.postgres.is_some()),
        ("redis", check.redis.is_some()),
        ("udp", check.udp.is_some()),
    ];
    let ways: Vec<&str> = ways.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
    if ways.len() > 1 {
        let message = format!("it asks in {} ways: {}", ways.len(), ways.join(", "));
        problems.push(Problem::at(&path, message, "keep one of them"));
    }
    if let Some(tls) = &check.tls {
        rules::backend_tls(tls, &format!("{path}.tls"), problems);
        if check.udp.is_some() {
            problems.push(Problem::at(
                format!("{path}.tls"),
                "datagrams go within no TLS",
                "remove tls, or udp",
            ));
        }
    }
    if let Some(redis) = check.redis.as_ref().filter(|redis| redis.user.is_some())
        && redis.password_file.is_none()
    {
        let path = format!("{path}.redis.user");
        problems.push(Problem::at(path, "the user has no password", "add passwordFile"));
    }
    if let Some(udp) = &check.udp {
        datagram(udp, &format!("{path}.udp"), problems);
    }
}

fn datagram(check: &UdpCheck, path: &str, problems: &mut Vec<Problem>) {
    if check.question().is_none() {
        let message = match check.send {
            None => "it says not what to send",
            Some(_) => "what is sent is written twice",
        };
        problems.push(Problem::at(path, message, "write exactly one of send, a text, and sendHex"));
    }
    if check.expect.is_some() && check.expect_hex.is_some() {
        let message = "how the answer begins is written twice";
        problems.push(Problem::at(path, message, "remove one of expect and expectHex"));
    }
}

fn backends(backends: &[Backend], own: &Address, path: &str, problems: &mut Vec<Problem>) {
    for (index, backend) in backends.iter().enumerate() {
        rules::backend(backend, own, &format!("{path}.backends[{index}]"), problems);
    }
}
