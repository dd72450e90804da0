//! What no schema can say: how values must fit together.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crds::{
    config::{
        Backend, BackendTls, Balance, DnsRecord, HealthCheck, HttpListener, ListenerTls, OutlierDetection,
        Site, Timeouts, TlsVersion,
    },
    units::{Address, Duration},
};

use super::{
    Problem, l4,
    places::{self, Listeners, unique},
    stack,
};

/// Checks the listeners that could be read; each stands at its place in the file.
pub(super) fn check(listeners: &Listeners<'_>, admin: SocketAddr) -> Vec<Problem> {
    let mut problems = Vec::new();
    places::check(listeners, admin, &mut problems);
    for (index, listener) in listeners.http.iter().enumerate() {
        if let Some(listener) = listener {
            http(listener, &format!("http[{index}]"), &mut problems);
        }
    }
    for (index, listener) in listeners.tcp.iter().enumerate() {
        if let Some(listener) = listener {
            l4::tcp(listener, &format!("tcp[{index}]"), &mut problems);
        }
    }
    for (index, listener) in listeners.udp.iter().enumerate() {
        if let Some(listener) = listener {
            l4::udp(listener, &format!("udp[{index}]"), &mut problems);
        }
    }
    problems
}

fn http(listener: &HttpListener, path: &str, problems: &mut Vec<Problem>) {
    if let Some(tls) = &listener.tls {
        listener_tls(tls, &format!("{path}.tls"), problems);
    }
    health(&listener.health, path, problems);
    timeouts(&listener.timeouts, path, problems);
    balance(listener, path, problems);
    outliers(&listener.outlier_detection, path, problems);
    stack::check(listener, path, problems);
    sites(listener, path, problems);
}

pub(super) fn listener_tls(tls: &ListenerTls, path: &str, problems: &mut Vec<Problem>) {
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

pub(super) fn not_zero(value: Duration, path: &str, problems: &mut Vec<Problem>) {
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

pub(super) fn outliers(rules: &OutlierDetection, path: &str, problems: &mut Vec<Problem>) {
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
    let own = listener.socket_address();
    let mut names = HashMap::new();
    for (index, Site { name, backends, tls, .. }) in listener.sites.iter().enumerate() {
        let path = format!("{path}.sites[{index}]");
        unique(name, &path, "site", &mut names, problems);
        if let Some(tls) = tls {
            backend_tls(tls, &format!("{path}.tls"), problems);
        }
        for (index, backend) in backends.iter().enumerate() {
            self::backend(backend, &own, &format!("{path}.backends[{index}]"), problems);
        }
    }
}

pub(super) fn backend(backend: &Backend, own: &Address, path: &str, problems: &mut Vec<Problem>) {
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
    if let Some(dns) = &backend.dns {
        let path = format!("{path}.dns.port");
        match (dns.record, dns.port) {
            (DnsRecord::Addresses, 0) => {
                problems.push(Problem::at(path, "it is missing", "add port (Port of every address)"));
            }
            (DnsRecord::Srv, 1..) => {
                problems.push(Problem::at(path, "SRV records have ports of their own", "remove it"));
            }
            _ => {}
        }
    }
    for (index, pattern) in backend.addresses.iter().flatten().enumerate() {
        for address in pattern.addresses() {
            if let Some((message, remedy)) = unusable(address, own) {
                problems.push(Problem::at(format!("{path}.addresses[{index}]"), message, remedy));
                break;
            }
        }
    }
}

/// Why nothing can be sent to an address.
fn unusable(address: &Address, own: &Address) -> Option<(String, &'static str)> {
    let (Some(address), Some(own)) = (address.ip(), own.ip()) else {
        return (address == own).then(|| itself(address));
    };
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::from([255; 4]) {
        return Some((
            format!("{ip} is not the address of a server"),
            "write the address that the server is reached at, such as 127.0.0.1 for one in this pod",
        ));
    }
    let covers = ip == own.ip() || own.ip().is_unspecified() && ip.is_loopback();
    (address.port() == own.port() && covers).then(|| itself(&address.into()))
}

fn itself(address: &Address) -> (String, &'static str) {
    let message = format!("{address} is the listener itself, which would call itself for ever");
    (message, "write the server's own address")
}
