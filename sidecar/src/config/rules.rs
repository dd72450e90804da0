//! What no schema can say: how values must fit together.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crds::{
    config::{
        Backend, BackendTls, Balance, HealthCheck, HttpListener, ListenerTls, OutlierDetection, Site,
        Timeouts, TlsVersion,
    },
    units::{Address, Duration, ListenAddress},
};

use serde_json::Value;

use super::{Problem, stack};

/// Checks the listeners that could be read; each stands at its place in the file.
pub(super) fn check(listeners: &[Option<&HttpListener>], admin: SocketAddr) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names = HashMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let Some(listener) = listener else { continue };
        let path = format!("http[{index}]");
        unique(&listener.name, &path, "listener", &mut names, &mut problems);
        address(listener, &path, admin, &mut problems);
        for earlier in listeners[..index].iter().flatten().filter(|earlier| listener.collides_with(earlier)) {
            let (field, own) = match listener.address {
                ListenAddress::Ip(_) => ("port", "port"),
                ListenAddress::Unix(_) => ("address", "path"),
            };
            problems.push(Problem::at(
                format!("{path}.{field}"),
                format!("{} is taken by the listener {:?}", listener.socket_address(), earlier.name),
                format!("give each listener its own {own}"),
            ));
        }
        if let Some(tls) = &listener.tls {
            listener_tls(tls, &format!("{path}.tls"), &mut problems);
        }
        health(&listener.health, &path, &mut problems);
        timeouts(&listener.timeouts, &path, &mut problems);
        balance(listener, &path, &mut problems);
        outliers(&listener.outlier_detection, &path, &mut problems);
        stack::check(listener, &path, &mut problems);
        sites(listener, &path, &mut problems);
    }
    problems
}

/// Listeners without a port, which only Unix sockets may be. Found in the raw value, so that a listener which cannot be read is
/// told of too.
pub(super) fn missing_ports(value: &Value) -> Vec<Problem> {
    let listeners = value.get("http").and_then(Value::as_array).into_iter().flatten();
    let needs_port = |listener: &Value| {
        let address = listener.get("address").and_then(Value::as_str).unwrap_or_default();
        listener.is_object() && listener.get("port").is_none() && !address.starts_with("unix:")
    };
    listeners
        .enumerate()
        .filter(|(_, listener)| needs_port(listener))
        .map(|(index, _)| {
            let path = format!("http[{index}].port");
            Problem::at(path, "it is missing", "add port (Port to listen on)")
        })
        .collect()
}

fn unique<'a>(
    name: &'a str,
    path: &str,
    what: &str,
    names: &mut HashMap<&'a str, String>,
    problems: &mut Vec<Problem>,
) {
    match names.get(name) {
        Some(first) => problems.push(Problem::at(
            format!("{path}.name"),
            format!("{first} is named {name:?} too"),
            format!("give each {what} its own name"),
        )),
        None => {
            names.insert(name, path.to_owned());
        }
    }
}

fn address(listener: &HttpListener, path: &str, admin: SocketAddr, problems: &mut Vec<Problem>) {
    let Some(ip) = listener.address.ip() else {
        if listener.port != 0 {
            problems.push(Problem::at(format!("{path}.port"), "a Unix socket has no port", "remove it"));
        }
        return;
    };
    if ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        problems.push(Problem::at(
            format!("{path}.address"),
            format!("{ip} is not an address that one can listen on"),
            "write 127.0.0.1, or 0.0.0.0 to take requests from outside",
        ));
    }
    let covers = ip == admin.ip() || ip.is_unspecified() || admin.ip().is_unspecified();
    if listener.port == admin.port() && covers {
        problems.push(Problem::at(
            format!("{path}.port"),
            format!("port {} serves the sidecar's own /live, /ready and /metrics", admin.port()),
            "choose another port",
        ));
    }
}

fn listener_tls(tls: &ListenerTls, path: &str, problems: &mut Vec<Problem>) {
    tls_versions(tls.min_version, tls.max_version, path, problems);
    if tls.certificate().is_some() {
        return;
    }
    let pair = "write certificateFile and keyFile";
    let (message, remedy) = match (&tls.certificate_file, &tls.key_file, &tls.self_signed) {
        (None, None, None) => ("it says not which certificate to serve", format!("{pair}, or selfSigned")),
        (_, _, Some(_)) => {
            ("a self-signed certificate has no files", "remove them, or selfSigned".to_owned())
        }
        (Some(_), _, None) => ("the key of the certificate is missing", format!("{pair} both")),
        (None, Some(_), None) => ("the certificate of the key is missing", format!("{pair} both")),
    };
    problems.push(Problem::at(path, message, remedy));
}

/// `path` is that of the settings.
pub(super) fn backend_tls(tls: &BackendTls, path: &str, problems: &mut Vec<Problem>) {
    tls_versions(tls.min_version, tls.max_version, path, problems);
}

fn tls_versions(min: TlsVersion, max: TlsVersion, path: &str, problems: &mut Vec<Problem>) {
    if min > max {
        let path = format!("{path}.minVersion");
        problems.push(Problem::at(path, "it is newer than maxVersion", "remove one of the two"));
    }
}

fn health(health: &HealthCheck, path: &str, problems: &mut Vec<Problem>) {
    not_zero(health.interval, &format!("{path}.health.interval"), problems);
    not_zero(health.timeout, &format!("{path}.health.timeout"), problems);
    for (field, set) in [("lastSitePath", health.last_site_path.is_some()), ("host", health.host.is_some())] {
        if set && health.path.is_none() {
            problems.push(Problem::at(
                format!("{path}.health.{field}"),
                "there is no path, so that the check is a TCP connect",
                "add path, which the sites are checked with",
            ));
        }
    }
}

fn timeouts(timeouts: &Timeouts, path: &str, problems: &mut Vec<Problem>) {
    let Timeouts { connect, first_byte, idle, total, .. } = timeouts;
    for (field, value) in [
        ("connect", Some(connect)),
        ("firstByte", Some(first_byte)),
        ("idle", Some(idle)),
        ("total", total.as_ref()),
    ] {
        if let Some(value) = value {
            not_zero(*value, &format!("{path}.timeouts.{field}"), problems);
        }
    }
}

fn not_zero(value: Duration, path: &str, problems: &mut Vec<Problem>) {
    if value.as_std().is_zero() {
        problems.push(Problem::at(path, "it is zero", "write a duration such as 5s or 500ms"));
    }
}

fn balance(listener: &HttpListener, path: &str, problems: &mut Vec<Problem>) {
    let by_hash = listener.balance == Balance::HeaderHash;
    if by_hash && listener.hash_header.is_none() {
        problems.push(Problem::at(
            format!("{path}.hashHeader"),
            "balance is HeaderHash, and no header is named",
            "name the header whose value decides, such as X-Tenant",
        ));
    }
    if !by_hash && listener.hash_header.is_some() {
        problems.push(Problem::at(
            format!("{path}.hashHeader"),
            "balance goes by no header",
            "write balance: HeaderHash, or remove hashHeader",
        ));
    }
}

fn outliers(rules: &OutlierDetection, path: &str, problems: &mut Vec<Problem>) {
    let (base, max) = (rules.base_ejection_time, rules.max_ejection_time);
    let path = format!("{path}.outlierDetection.baseEjectionTime");
    if base.as_std().is_zero() {
        let remedy = "write a duration such as 30s; consecutiveErrors: 0 switches ejection off";
        problems.push(Problem::at(path, "it is zero", remedy));
    } else if base > max {
        let message = format!("{base} is longer than maxEjectionTime, which is {max}");
        problems.push(Problem::at(path, message, "raise maxEjectionTime or lower baseEjectionTime"));
    }
}

fn sites(listener: &HttpListener, path: &str, problems: &mut Vec<Problem>) {
    let mut names = HashMap::new();
    for (index, Site { name, backends, tls, .. }) in listener.sites.iter().enumerate() {
        let path = format!("{path}.sites[{index}]");
        unique(name, &path, "site", &mut names, problems);
        if let Some(tls) = tls {
            backend_tls(tls, &format!("{path}.tls"), problems);
        }
        for (index, backend) in backends.iter().enumerate() {
            self::backend(backend, listener, &format!("{path}.backends[{index}]"), problems);
        }
    }
}

fn backend(backend: &Backend, listener: &HttpListener, path: &str, problems: &mut Vec<Problem>) {
    if backend.source().is_none() {
        let named = [
            ("service", backend.service.is_some()),
            ("addresses", backend.addresses.is_some()),
            ("dns", backend.dns.is_some()),
            ("unresolved", backend.unresolved.is_some()),
        ];
        let named: Vec<&str> = named.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect();
        let message = match named.as_slice() {
            [] => "it says not where backends come from".to_owned(),
            several => format!("it has {} sources: {}", several.len(), several.join(", ")),
        };
        problems.push(Problem::at(path, message, "write exactly one of service, addresses or dns"));
    }
    for (index, pattern) in backend.addresses.iter().flatten().enumerate() {
        for address in pattern.addresses() {
            if let Some((message, remedy)) = unusable(address, listener) {
                problems.push(Problem::at(format!("{path}.addresses[{index}]"), message, remedy));
                break;
            }
        }
    }
}

/// Why requests cannot be sent to an address.
fn unusable(address: &Address, listener: &HttpListener) -> Option<(String, &'static str)> {
    let Some(address) = address.ip() else {
        return (*address == listener.socket_address()).then(|| itself(address));
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return Some((
            format!("{ip} is not the address of a server"),
            "write the address that the server is reached at, such as 127.0.0.1 for one in this pod",
        ));
    }
    let own = listener.address.ip()?;
    let is_own = address.port() == listener.port && (ip == own || own.is_unspecified() && ip.is_loopback());
    is_own.then(|| itself(&address.into()))
}

fn itself(address: &Address) -> (String, &'static str) {
    let message = format!("{address} is the listener itself, which would call itself for ever");
    (message, "write the server's own address")
}
