//! Names and addresses of listeners: each has its own, and none takes the sidecar's.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
};

use crds::{
    config::{HttpListener, SidecarConfig, TcpListener, UdpListener},
    units::{Address, ListenAddress},
};
use serde_json::Value;

use super::Problem;

/// The listeners that could be read; each stands at its place in the file.
#[derive(Debug, Default)]
pub(super) struct Listeners<'a> {
    pub(super) http: Vec<Option<&'a HttpListener>>,
    pub(super) tcp: Vec<Option<&'a TcpListener>>,
    pub(super) udp: Vec<Option<&'a UdpListener>>,
}

/// Where a listener stands in the file, and in the world.
struct Place<'a> {
    path: String,
    name: &'a str,
    listens: &'a ListenAddress,
    port: u16,
    datagrams: bool,
}

impl<'a> From<&'a SidecarConfig> for Listeners<'a> {
    fn from(config: &'a SidecarConfig) -> Self {
        Self {
            http: config.http.iter().map(Some).collect(),
            tcp: config.tcp.iter().map(Some).collect(),
            udp: config.udp.iter().map(Some).collect(),
        }
    }
}

impl Place<'_> {
    fn address(&self) -> Address {
        self.listens.at(self.port)
    }

    /// Ports of TCP and UDP are not the same ports.
    fn excludes(&self, other: &Self) -> bool {
        self.datagrams == other.datagrams && self.address().excludes(&other.address())
    }
}

pub(super) fn check(listeners: &Listeners<'_>, admin: SocketAddr, problems: &mut Vec<Problem>) {
    let places = places(listeners);
    let mut names = HashMap::new();
    for (index, place) in places.iter().enumerate() {
        unique(place.name, &place.path, "listener", &mut names, problems);
        address(place, admin, problems);
        let earlier = places[..index].iter().find(|earlier| place.excludes(earlier));
        if let Some(earlier) = earlier {
            let (field, own) = match place.listens {
                ListenAddress::Ip(_) => ("port", "port"),
                ListenAddress::Unix(_) => ("address", "path"),
            };
            problems.push(Problem::at(
                format!("{}.{field}", place.path),
                format!("{} is taken by the listener {:?}", place.address(), earlier.name),
                format!("give each listener its own {own}"),
            ));
        }
    }
}

fn places<'a>(listeners: &Listeners<'a>) -> Vec<Place<'a>> {
    let place = |kind: &str, index: usize, name: &'a str, listens: &'a ListenAddress, port: u16| Place {
        path: format!("{kind}[{index}]"),
        name,
        listens,
        port,
        datagrams: kind == "udp",
    };
    let http = listeners.http.iter().enumerate().filter_map(|(index, listener)| {
        listener.map(|listener| place("http", index, &listener.name, &listener.address, listener.port))
    });
    let tcp = listeners.tcp.iter().enumerate().filter_map(|(index, listener)| {
        listener.map(|listener| place("tcp", index, &listener.name, &listener.address, listener.port))
    });
    let udp = listeners.udp.iter().enumerate().filter_map(|(index, listener)| {
        listener.map(|listener| place("udp", index, &listener.name, &listener.address, listener.port))
    });
    http.chain(tcp).chain(udp).collect()
}

/// Listeners without a port, which only Unix sockets may be. Found in the raw value, so that a listener which cannot be read is
/// told of too.
pub(super) fn missing_ports(value: &Value) -> Vec<Problem> {
    let needs_port = |listener: &Value| {
        let address = listener.get("address").and_then(Value::as_str).unwrap_or_default();
        listener.is_object() && listener.get("port").is_none() && !address.starts_with("unix:")
    };
    let of_kind = |kind: &'static str| {
        let listeners = value.get(kind).and_then(Value::as_array).into_iter().flatten();
        listeners.enumerate().filter(|(_, listener)| needs_port(listener)).map(move |(index, _)| {
            let path = format!("{kind}[{index}].port");
            Problem::at(path, "it is missing", "add port (Port to listen on)")
        })
    };
    // The schema asks for the port of a UDP listener.
    of_kind("http").chain(of_kind("tcp")).collect()
}

pub(super) fn unique<'a>(
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

fn address(place: &Place<'_>, admin: SocketAddr, problems: &mut Vec<Problem>) {
    let path = &place.path;
    let Some(ip) = place.listens.ip() else {
        if place.datagrams {
            let remedy = "write an IP address such as 127.0.0.1";
            problems.push(Problem::at(format!("{path}.address"), "UDP has no Unix sockets here", remedy));
        } else if place.port != 0 {
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
    if !place.datagrams && place.address().excludes(&admin.into()) {
        problems.push(Problem::at(
            format!("{path}.port"),
            format!("port {} serves the sidecar's own /live, /ready and /metrics", admin.port()),
            "choose another port",
        ));
    }
}
