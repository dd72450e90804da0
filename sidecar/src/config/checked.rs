//! A configuration that was checked: nothing below has to ask again whether a value makes sense.

use std::time::Duration;

use crds::{
    config::{
        Backend, BackendSource, BackendTls, HttpListener, PolicyReference, Protocol, SidecarConfig,
        TcpListener, UdpListener, WeightedSource,
    },
    units::Address,
};

/// A configuration without errors. Only [`load`](super::load) makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    policy: Option<PolicyReference>,
    drain_timeout: Duration,
    listeners: Vec<CheckedListener>,
}

/// A listener whose name and address no other listener has.
#[derive(Debug, Clone, PartialEq)]
pub enum CheckedListener {
    Http(Box<CheckedHttp>),
    Tcp(Box<CheckedTcp>),
    Udp(Box<CheckedUdp>),
}

/// An HTTP listener and its sites.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedHttp {
    listener: HttpListener,
    sites: Vec<CheckedSite>,
}

/// A TCP listener whose backends, and those of its routes, each have exactly one source.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedTcp {
    listener: TcpListener,
    sources: Vec<WeightedSource>,
    /// In the order of the listener's.
    routes: Vec<Vec<WeightedSource>>,
}

/// A UDP listener whose backends each have exactly one source.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedUdp {
    listener: UdpListener,
    sources: Vec<WeightedSource>,
}

/// A site whose backends each have exactly one source.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedSite {
    name: String,
    sources: Vec<WeightedSource>,
    tls: Option<BackendTls>,
    protocol: Protocol,
}

impl Checked {
    /// The caller has found no problem in `config`; a backend without a source would be left out.
    pub(super) fn new(config: SidecarConfig) -> Self {
        let http = config
            .http
            .into_iter()
            .map(|listener| CheckedListener::Http(Box::new(CheckedHttp::new(listener))));
        let tcp = config.tcp.into_iter().map(|listener| {
            CheckedListener::Tcp(Box::new(CheckedTcp {
                sources: sources(&listener.backends),
                routes: listener.routes.iter().map(|route| sources(&route.backends)).collect(),
                listener,
            }))
        });
        let udp = config.udp.into_iter().map(|listener| {
            CheckedListener::Udp(Box::new(CheckedUdp { sources: sources(&listener.backends), listener }))
        });
        Self {
            policy: config.policy,
            drain_timeout: config.drain_timeout.as_std(),
            listeners: http.chain(tcp).chain(udp).collect(),
        }
    }

    /// The policy that this came from, and its generation; `None` for a file written by hand.
    pub fn policy(&self) -> Option<&PolicyReference> {
        self.policy.as_ref()
    }

    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    /// Those of HTTP first, then of TCP, then of UDP, each in the order of the file.
    pub fn listeners(&self) -> &[CheckedListener] {
        &self.listeners
    }

    /// Every source of every listener, as often as it is named.
    pub fn sources(&self) -> impl Iterator<Item = &BackendSource> {
        self.listeners.iter().flat_map(CheckedListener::sources).flatten().map(|weighted| &weighted.source)
    }
}

impl CheckedListener {
    pub fn name(&self) -> &str {
        match self {
            Self::Http(http) => &http.listener.name,
            Self::Tcp(tcp) => &tcp.listener.name,
            Self::Udp(udp) => &udp.listener.name,
        }
    }

    pub fn socket_address(&self) -> Address {
        match self {
            Self::Http(http) => http.listener.socket_address(),
            Self::Tcp(tcp) => tcp.listener.address.at(tcp.listener.port),
            Self::Udp(udp) => udp.listener.address.at(udp.listener.port),
        }
    }

    /// Whether the two cannot be open at once. Ports of TCP and UDP are not the same ports.
    pub fn excludes(&self, other: &Self) -> bool {
        let datagrams = |listener: &Self| matches!(listener, Self::Udp(_));
        datagrams(self) == datagrams(other) && self.socket_address().excludes(&other.socket_address())
    }

    /// Whether one can become the other in place: the same kind by the same name at the same address.
    pub fn is_same(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            && self.name() == other.name()
            && self.socket_address() == other.socket_address()
    }

    /// The sources of each of its backend sets.
    pub fn sources(&self) -> Vec<&[WeightedSource]> {
        match self {
            Self::Http(http) => http.sites.iter().map(CheckedSite::sources).collect(),
            Self::Tcp(tcp) => std::iter::once(tcp.sources()).chain(tcp.routes()).collect(),
            Self::Udp(udp) => vec![udp.sources()],
        }
    }
}

impl CheckedHttp {
    fn new(listener: HttpListener) -> Self {
        let sites = listener.sites.iter().map(|site| CheckedSite {
            name: site.name.clone(),
            tls: site.tls.clone(),
            protocol: site.protocol,
            sources: sources(&site.backends),
        });
        Self { sites: sites.collect(), listener }
    }

    pub fn listener(&self) -> &HttpListener {
        &self.listener
    }

    pub fn sites(&self) -> &[CheckedSite] {
        &self.sites
    }
}

impl CheckedTcp {
    pub fn listener(&self) -> &TcpListener {
        &self.listener
    }

    /// Those of clients that no route is for.
    pub fn sources(&self) -> &[WeightedSource] {
        &self.sources
    }

    /// Those of each route.
    pub fn routes(&self) -> impl Iterator<Item = &[WeightedSource]> {
        self.routes.iter().map(Vec::as_slice)
    }
}

impl CheckedUdp {
    pub fn listener(&self) -> &UdpListener {
        &self.listener
    }

    pub fn sources(&self) -> &[WeightedSource] {
        &self.sources
    }
}

impl CheckedSite {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn sources(&self) -> &[WeightedSource] {
        &self.sources
    }

    pub fn tls(&self) -> Option<&BackendTls> {
        self.tls.as_ref()
    }

    pub fn protocol(&self) -> Protocol {
        self.protocol
    }
}

fn sources(backends: &[Backend]) -> Vec<WeightedSource> {
    backends.iter().filter_map(Backend::weighted_source).collect()
}
