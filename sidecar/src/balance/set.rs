//! Backend sets as discovery publishes them: immutable snapshots, the whole set each time.

use std::sync::Arc;

use crds::units::Address;

/// What discovery knows about one site at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendSet {
    /// Each address once, sorted.
    pub endpoints: Vec<Endpoint>,
    /// Sources that give no backends now, and why; the text of the 503.
    pub unavailable: Vec<Unavailable>,
    /// Every source has answered at least once (or gave the last good set of an earlier run).
    pub answered: bool,
}

/// One address that may take traffic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    pub address: Address,
    /// Further addresses of the same server, for when this one does not answer.
    pub others: Option<Arc<[Address]>>,
    /// Terminating but still serving: takes traffic only while the set has no other live backend.
    pub terminating: bool,
    /// The name that its source is asked for, which TLS expects in the backend's certificate. Static addresses have none.
    pub host: Option<Arc<str>>,
    /// Share of the requests relative to the set's others; 0 takes no new ones.
    pub weight: u32,
    /// Where its node is.
    pub zone: Nearness,
    /// For whom its Service's hints say that it is.
    pub hinted: Nearness,
}

/// A place as seen from the zone of this sidecar.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Nearness {
    #[default]
    Unknown,
    Here,
    Elsewhere,
}

impl Endpoint {
    /// One that serves, of a source without a name, in a place unknown.
    pub fn at(address: impl Into<Address>) -> Self {
        Self {
            address: address.into(),
            others: None,
            terminating: false,
            host: None,
            weight: 1,
            zone: Nearness::Unknown,
            hinted: Nearness::Unknown,
        }
    }
}

/// A source without backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable {
    /// As in `Service storage/minio` or `DNS name s3.example.com`.
    pub what: String,
    /// Why, and what to do about it.
    pub message: String,
}
