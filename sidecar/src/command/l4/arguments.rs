//! The arguments of `sidecar l4`: those of SideLB, one `name=value` each, and flags for what it does not have.

use std::{net::SocketAddr, num::NonZeroUsize, str::FromStr};

use clap::Args;
use crds::{
    config::L4Balance,
    units::{AddressPattern, DnsName},
};

use crate::telemetry::log;

/// SideLB's arguments, but for what it got wrong.
#[derive(Debug, Clone, Args)]
pub(in crate::command) struct Arguments {
    /// Address to listen on, such as 127.0.0.1:5432 or [::1]:5432; then addresses of backends, and any of
    /// backends=IP:PORT,..., ring_domain=HOST:PORT, mode=HOW and proto=tcp|udp
    #[arg(value_name = "ARGUMENT", required_unless_present = "health_check_uds", num_args = 1..)]
    pub(super) arguments: Vec<String>,

    /// Ask the one that runs on this machine whether it has a live backend: exit code 0 if so, 1 if not
    #[arg(long, conflicts_with = "arguments")]
    pub(super) health_check_uds: bool,

    /// Threads that serve connections [default: one for each CPU]
    #[arg(long, value_name = "N")]
    pub(super) threads: Option<NonZeroUsize>,

    /// Address of /live, /ready and /metrics; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub(super) admin_address: SocketAddr,

    /// How much to log
    #[arg(long, value_enum, default_value = "info")]
    pub(super) log_level: log::Level,

    /// How to log [default: text on a terminal, json elsewhere]
    #[arg(long, value_enum)]
    pub(super) log_format: Option<log::Format>,
}

pub(in crate::command) const EXAMPLES: &str = "\
Examples:
  sidecar l4 127.0.0.1:5432 ring_domain=db.example.com:5432
  sidecar l4 127.0.0.1:6379 backends=10.0.0.1:6379,10.0.0.2:6379 mode=least-connections
  sidecar l4 [::1]:53 [fd00::1]:53 [fd00::2]:53 proto=udp

mode is round-robin, least-connections, two-choices, random or source-hash.";

/// What the arguments say.
#[derive(Debug, PartialEq)]
pub(super) struct Wanted {
    pub(super) listen: SocketAddr,
    pub(super) backends: Vec<AddressPattern>,
    pub(super) ring: Vec<(DnsName, u16)>,
    pub(super) balance: L4Balance,
    pub(super) transport: Transport,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// An argument that cannot be used, and what to write instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ArgumentsError {
    #[error("{0:?} is not an address to listen on; write it first, as in 127.0.0.1:5432 or [::1]:5432")]
    Listen(String),
    #[error(
        "{0:?} is no argument; known are backends=, ring_domain=, mode=, proto=, and addresses such as 10.0.0.1:5432"
    )]
    Unknown(String),
    #[error("{argument}: {cause}")]
    Backend { argument: String, cause: String },
    #[error("{0:?} is not HOST:PORT; write ring_domain=db.example.com:5432")]
    Ring(String),
    #[error("ring_domain: {0}")]
    Host(String),
    #[error(
        "mode {0:?} is not known; write mode=round-robin, least-connections, two-choices, random or source-hash"
    )]
    Mode(String),
    #[error("proto {0:?} is not known; write proto=tcp or proto=udp")]
    Proto(String),
    #[error("{0}= is given twice; write it once")]
    Twice(&'static str),
    #[error("there are no backends; add ring_domain=HOST:PORT, or addresses such as 10.0.0.1:5432")]
    NoBackends,
}

impl Wanted {
    pub(super) fn parse(arguments: &[String]) -> Result<Self, ArgumentsError> {
        let (listen, rest) = arguments.split_first().ok_or(ArgumentsError::NoBackends)?;
        let listen = listen.parse().map_err(|_| ArgumentsError::Listen(listen.clone()))?;
        let (mut backends, mut ring, mut mode, mut proto) = (Vec::new(), Vec::new(), None, None);
        for argument in rest {
            match argument.split_once('=') {
                None => backends.push(backend(argument, argument)?),
                Some(("backends", list)) => {
                    for address in list.split(',').map(str::trim).filter(|address| !address.is_empty()) {
                        backends.push(backend(argument, address)?);
                    }
                }
                Some(("ring_domain", domain)) => ring.push(host_and_port(domain)?),
                Some(("mode", name)) => once(&mut mode, "mode", self::mode(name)?)?,
                Some(("proto", name)) => once(&mut proto, "proto", self::transport(name)?)?,
                Some(_) => return Err(ArgumentsError::Unknown(argument.clone())),
            }
        }
        if backends.is_empty() && ring.is_empty() {
            return Err(ArgumentsError::NoBackends);
        }
        Ok(Self {
            listen,
            backends,
            ring,
            balance: mode.unwrap_or(L4Balance::RoundRobin),
            transport: proto.unwrap_or(Transport::Tcp),
        })
    }
}

fn once<T>(place: &mut Option<T>, name: &'static str, value: T) -> Result<(), ArgumentsError> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(ArgumentsError::Twice(name)),
    }
}

/// `argument` is the whole of what the address stands in.
fn backend(argument: &str, address: &str) -> Result<AddressPattern, ArgumentsError> {
    if !address.contains(':') {
        return Err(ArgumentsError::Unknown(argument.to_owned()));
    }
    address.parse().map_err(|error: crds::units::UnitError| {
        let named = address.rsplit_once(':').is_some_and(|(host, _)| host.parse::<DnsName>().is_ok());
        let remedy = if named { "; a name is written as ring_domain=HOST:PORT" } else { "" };
        ArgumentsError::Backend { argument: argument.to_owned(), cause: format!("{error}{remedy}") }
    })
}

fn host_and_port(domain: &str) -> Result<(DnsName, u16), ArgumentsError> {
    let ring = || ArgumentsError::Ring(domain.to_owned());
    let (host, port) = domain.rsplit_once(':').ok_or_else(ring)?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(ring)?;
    let host = DnsName::from_str(host).map_err(|error| ArgumentsError::Host(error.to_string()))?;
    Ok((host, port))
}

fn mode(name: &str) -> Result<L4Balance, ArgumentsError> {
    match name.to_ascii_lowercase().as_str() {
        "round-robin" => Ok(L4Balance::RoundRobin),
        "least-connections" => Ok(L4Balance::LeastConnections),
        "two-choices" => Ok(L4Balance::TwoChoices),
        "random" => Ok(L4Balance::Random),
        "source-hash" => Ok(L4Balance::SourceHash),
        _ => Err(ArgumentsError::Mode(name.to_owned())),
    }
}

fn transport(name: &str) -> Result<Transport, ArgumentsError> {
    match name.to_ascii_lowercase().as_str() {
        "tcp" => Ok(Transport::Tcp),
        "udp" => Ok(Transport::Udp),
        _ => Err(ArgumentsError::Proto(name.to_owned())),
    }
}
