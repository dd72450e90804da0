//! A configuration that was checked: nothing below has to ask again whether a value makes sense.

use std::time::Duration;

use crds::{
    config::{
        BackendSource, BackendTls, HttpListener, PolicyReference, Protocol, SidecarConfig, WeightedSource,
    },
    units::Address,
};

/// A configuration without errors. Only [`load`](super::load) makes one.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    policy: Option<PolicyReference>,
    drain_timeout: Duration,
    http: Vec<CheckedListener>,
}

/// A listener whose name and address no other listener has.
#[derive(Debug, Clone, PartialEq)]
pub struct CheckedListener {
    listener: HttpListener,
    sites: Vec<CheckedSite>,
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
        let listener = |listener: HttpListener| CheckedListener {
            sites: listener
                .sites
                .iter()
                .map(|site| CheckedSite {
                    name: site.name.clone(),
                    tls: site.tls.clone(),
                    protocol: site.protocol,
                    sources: site
                        .backends
                        .iter()
                        .filter_map(crds::config::Backend::weighted_source)
                        .collect(),
                })
                .collect(),
            listener,
        };
        Self {
            policy: config.policy,
            drain_timeout: config.drain_timeout.as_std(),
            http: config.http.into_iter().map(listener).collect(),
        }
    }

    /// The policy that this came from, and its generation; `None` for a file written by hand.
    pub fn policy(&self) -> Option<&PolicyReference> {
        self.policy.as_ref()
    }

    pub fn drain_timeout(&self) -> Duration {
        self.drain_timeout
    }

    pub fn http(&self) -> &[CheckedListener] {
        &self.http
    }

    /// Every source of every site, as often as it is named.
    pub fn sources(&self) -> impl Iterator<Item = &BackendSource> {
        let sites = self.http.iter().flat_map(|listener| &listener.sites);
        sites.flat_map(|site| &site.sources).map(|weighted| &weighted.source)
    }
}

impl CheckedListener {
    pub fn name(&self) -> &str {
        &self.listener.name
    }

    pub fn socket_address(&self) -> Address {
        self.listener.socket_address()
    }

    pub fn listener(&self) -> &HttpListener {
        &self.listener
    }

    pub fn sites(&self) -> &[CheckedSite] {
        &self.sites
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
