//! Rules of TCP and UDP listeners.

use crds::{
    config::{Backend, L4Balance, PlainText, ServerCheck, TcpListener, UdpListener},
    units::Address,
};

use super::{
    Problem,
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
    health(&listener.health, path, problems);
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

pub(super) fn udp(listener: &UdpListener, path: &str, problems: &mut Vec<Problem>) {
    if let Some(check) = &listener.health {
        health(check, path, problems);
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
}

fn backends(backends: &[Backend], own: &Address, path: &str, problems: &mut Vec<Problem>) {
    for (index, backend) in backends.iter().enumerate() {
        rules::backend(backend, own, &format!("{path}.backends[{index}]"), problems);
    }
}
