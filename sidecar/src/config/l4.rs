//! Rules of TCP and UDP listeners.

use crds::{
    config::{Backend, PlainText, ServerCheck, TcpListener, UdpListener},
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
        ("backendLimits.queueTimeout", listener.backend_limits.queue_timeout),
    ] {
        not_zero(value, &format!("{path}.{field}"), problems);
    }
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

fn health(check: &ServerCheck, path: &str, problems: &mut Vec<Problem>) {
    not_zero(check.interval, &format!("{path}.health.interval"), problems);
    not_zero(check.timeout, &format!("{path}.health.timeout"), problems);
}

fn backends(backends: &[Backend], own: &Address, path: &str, problems: &mut Vec<Problem>) {
    for (index, backend) in backends.iter().enumerate() {
        rules::backend(backend, own, &format!("{path}.backends[{index}]"), problems);
    }
}
