//! Sources of backends, with everything resolved that only the operator can resolve.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    balance::{MAX_WEIGHT, default_weight, is_default},
    listener::is_zero,
};
use crate::units::{AddressPattern, DnsName, Duration};

/// One source of backends as it is written: exactly one of the fields is set. [`Backend::source`] parses it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Backend {
    /// The EndpointSlices of a Kubernetes Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceBackend>,

    /// Static addresses, `ip:port`, with ranges such as `10.9.0.{1...4}:9000`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub addresses: Option<Vec<AddressPattern>>,

    /// The addresses of a DNS name, asked again when its TTL has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsBackend>,

    /// Written by the operator for what it could not resolve: no backends, and the reason for the 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unresolved: Option<UnresolvedBackend>,

    /// Share of the requests that each backend of this source gets, relative to the others of its site. 0 takes no new
    /// requests.
    #[serde(default = "default_weight", skip_serializing_if = "is_default_weight")]
    #[schemars(range(max = MAX_WEIGHT))]
    pub weight: u32,
}

/// The one source of a [`Backend`], and its weight.
#[derive(Debug, Clone, PartialEq)]
pub struct WeightedSource {
    pub source: BackendSource,
    pub weight: u32,
}

/// A [`Backend`] with its one source chosen.
#[derive(Debug, Clone, PartialEq)]
pub enum BackendSource {
    Service(ServiceBackend),
    Addresses(Vec<AddressPattern>),
    Dns(DnsBackend),
    Unresolved(UnresolvedBackend),
}

impl Backend {
    /// The one source that is set, with its weight; `None` when there are none or several.
    pub fn weighted_source(&self) -> Option<WeightedSource> {
        self.source().map(|source| WeightedSource { source, weight: self.weight })
    }

    /// The one source that is set; `None` when there are none or several.
    pub fn source(&self) -> Option<BackendSource> {
        match (&self.service, &self.addresses, &self.dns, &self.unresolved) {
            (Some(service), None, None, None) => Some(BackendSource::Service(service.clone())),
            (None, Some(addresses), None, None) => Some(BackendSource::Addresses(addresses.clone())),
            (None, None, Some(dns), None) => Some(BackendSource::Dns(dns.clone())),
            (None, None, None, Some(unresolved)) => Some(BackendSource::Unresolved(unresolved.clone())),
            _ => None,
        }
    }
}

impl From<WeightedSource> for Backend {
    fn from(WeightedSource { source, weight }: WeightedSource) -> Self {
        let none = Self { service: None, addresses: None, dns: None, unresolved: None, weight };
        match source {
            BackendSource::Service(service) => Self { service: Some(service), ..none },
            BackendSource::Addresses(addresses) => Self { addresses: Some(addresses), ..none },
            BackendSource::Dns(dns) => Self { dns: Some(dns), ..none },
            BackendSource::Unresolved(unresolved) => Self { unresolved: Some(unresolved), ..none },
        }
    }
}

/// With the weight that a source has by default.
impl From<BackendSource> for WeightedSource {
    fn from(source: BackendSource) -> Self {
        Self { source, weight: default_weight() }
    }
}

fn is_default_weight(weight: &u32) -> bool {
    *weight == default_weight()
}

/// A Service by the port name that its EndpointSlices use, which is not the number that its clients use.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceBackend {
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The `name` of the port in the EndpointSlices; empty for a Service with one unnamed port.
    #[serde(default)]
    #[schemars(length(max = 63))]
    pub port_name: String,
    /// Slices of the other family are left out, or each pod of a dual-stack Service would count twice.
    #[serde(default)]
    pub family: AddressFamily,
    /// What the port is for: one name may stand for a port of each.
    #[serde(default, skip_serializing_if = "is_default")]
    pub transport: Transport,
}

/// What carries the bytes, by the names that Kubernetes gives to protocols of ports.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum Transport {
    #[default]
    #[serde(rename = "TCP")]
    Tcp,
    #[serde(rename = "UDP")]
    Udp,
}

impl Transport {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Of the protocol of a port, which is TCP unless it is said; none for what is not carried here.
    pub fn of(protocol: Option<&str>) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|transport| transport.as_str() == protocol.unwrap_or("TCP"))
    }
}

/// The address family of EndpointSlices.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AddressFamily {
    #[default]
    IPv4,
    IPv6,
}

/// A DNS name and the port that its addresses are used with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [json!({
    "rule": "has(self.port) != (has(self.record) && self.record == 'Srv')",
    "message": "port is that of every address, and SRV records have ports of their own",
})]))]
pub struct DnsBackend {
    /// Name to ask for.
    pub host: DnsName,
    /// Port of every address; SRV records have their own.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,
    /// What is asked for. Addresses: every A and AAAA record is one backend. Srv: every SRV record of the best priority that has
    /// addresses, with port and weight of its own, as in `_postgresql._tcp.db.example.com`.
    #[serde(default, skip_serializing_if = "is_default")]
    pub record: DnsRecord,
    /// What is one backend. Address: each address. ReverseName: all addresses with one name in reverse DNS (PTR), which are tried
    /// one after the other, so that a server with an IPv4 and an IPv6 address counts once.
    #[serde(default, skip_serializing_if = "is_default")]
    pub group_by: DnsGrouping,
    /// The name is asked for again after this time at the latest, however long its TTL is; never more often than each
    /// second. 5 minutes unless it is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Duration>,
}

/// What a name is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DnsRecord {
    #[default]
    Addresses,
    Srv,
}

/// What is one backend of a name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum DnsGrouping {
    #[default]
    Address,
    ReverseName,
}

impl DnsBackend {
    /// Every address of a name, at this port.
    pub fn new(host: DnsName, port: u16) -> Self {
        Self { host, port, record: DnsRecord::Addresses, group_by: DnsGrouping::Address, refresh: None }
    }
}

/// A backend that the operator could not resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UnresolvedBackend {
    /// What is missing, as in `Service storage/minio`.
    pub what: String,
    /// Why, and what to do about it.
    pub message: String,
}
