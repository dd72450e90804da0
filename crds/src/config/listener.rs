//! HTTP listeners and their sites.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Backend, BackendTls, HealthCheck, ListenerTls};

pub const MAX_LISTENERS: u32 = 16;
pub const MAX_SITES: u32 = 8;

/// A local address that the sidecar opens for the application, and where its requests go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpListener {
    /// Names the listener in logs, metrics and errors. Unique within the file.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Address to listen on. 127.0.0.1 serves the application alone.
    #[serde(default = "default_address")]
    pub address: IpAddr,

    /// Port to listen on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Makes this an HTTPS listener. Without it requests come in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,

    /// Sites in failover order: the first one with a live backend takes all traffic.
    #[schemars(length(min = 1, max = MAX_SITES))]
    pub sites: Vec<Site>,

    /// Active checks of every backend of every site. Without it, a TCP connect every 5 s.
    #[serde(default)]
    pub health: HealthCheck,
}

impl HttpListener {
    pub fn socket_address(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }

    /// Whether the two cannot be open at once: same port, and one address covers the other.
    pub fn collides_with(&self, other: &Self) -> bool {
        self.port == other.port
            && (self.address == other.address
                || self.address.is_unspecified()
                || other.address.is_unspecified())
    }
}

/// An ordered group of backends.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Site {
    /// Names the site in logs, metrics and errors. Unique within the listener.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// Where the site's backends come from; all sources together make one backend set.
    #[schemars(length(min = 1, max = 16))]
    pub backends: Vec<Backend>,

    /// Requests and checks go to the backends within TLS. Without it they go in plain text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<BackendTls>,
}

pub(crate) fn default_address() -> IpAddr {
    IpAddr::V4(Ipv4Addr::LOCALHOST)
}
