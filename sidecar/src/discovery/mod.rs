//! Sources -> backend sets: each source is followed by one task, however many sites name it, and each site's sources are
//! merged into one snapshot.
//!
//! A set that was found is kept until the source gives another: no error empties it. The last good sets of an earlier run
//! serve until the first real answer.

pub mod cluster;
pub mod dns;
pub mod kubernetes;
mod merge;
mod servers;
pub mod state;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use crds::config::{
    BackendSource, DnsBackend, DnsGrouping, DnsRecord, ServiceBackend, Transport, WeightedSource,
};
use tokio::sync::watch;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use self::{cluster::Cluster, dns::Lookup, state::StateDir};
use crate::balance::{BackendSet, Endpoint, Unavailable};

/// What a site's traffic is balanced over, as it changes.
pub type Backends = watch::Receiver<Arc<BackendSet>>;

/// Follows sources for the sites that name them.
pub struct Discovery {
    cluster: Arc<Cluster>,
    lookup: Arc<dyn Lookup>,
    state: Arc<StateDir>,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Of this process, where it is known.
    zone: Option<Arc<str>>,
    followed: HashMap<Identity, Weak<Followed>>,
}

/// Two sources of one identity are followed once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Identity {
    Service(ServiceBackend),
    Dns(DnsBackend),
}

/// A source that a task follows for as long as a site names it.
struct Followed {
    backends: Backends,
    host: Arc<str>,
    _task: DropGuard,
}

impl Discovery {
    pub fn new(
        cluster: Arc<Cluster>,
        lookup: Arc<dyn Lookup>,
        state: Arc<StateDir>,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        Self { cluster, lookup, state, tasks, stop, zone: None, followed: HashMap::new() }
    }

    /// Tells backends of this zone from others.
    pub fn in_zone(self, zone: Option<&str>) -> Self {
        Self { zone: zone.map(Arc::from), ..self }
    }

    /// The merged set of a site's sources. Its first value holds all that is known by now. The sources are followed until
    /// the receiver and its clones are dropped.
    pub fn subscribe(&mut self, sources: &[WeightedSource]) -> Backends {
        let mut fixed = Vec::new();
        let mut followed = Vec::new();
        for WeightedSource { source, weight } in sources {
            match source {
                BackendSource::Addresses(patterns) => {
                    let addresses = patterns.iter().flat_map(|pattern| pattern.addresses());
                    let endpoints = addresses
                        .map(|address| Endpoint { weight: *weight, ..Endpoint::at(address.clone()) });
                    fixed.push(BackendSet {
                        endpoints: endpoints.collect(),
                        unavailable: Vec::new(),
                        answered: true,
                    });
                }
                BackendSource::Unresolved(unresolved) => fixed.push(unavailable(Unavailable {
                    what: unresolved.what.clone(),
                    message: unresolved.message.clone(),
                })),
                BackendSource::Service(service) => {
                    followed.push((self.follow(Identity::Service(service.clone())), *weight))
                }
                BackendSource::Dns(dns) => followed.push((self.follow(Identity::Dns(dns.clone())), *weight)),
            }
        }
        self.followed.retain(|_, followed| followed.strong_count() > 0);
        merge::publish(fixed, followed, &self.tasks)
    }

    fn follow(&mut self, identity: Identity) -> Arc<Followed> {
        if let Some(followed) = self.followed.get(&identity).and_then(Weak::upgrade) {
            return followed;
        }
        let key = identity.state_key();
        let first = match self.state.load_set(&key) {
            Some(endpoints) => BackendSet { endpoints, unavailable: Vec::new(), answered: true },
            None => BackendSet::default(),
        };
        let (publisher, backends) = watch::channel(Arc::new(first));
        let publisher = Publisher { sender: publisher, state: self.state.clone(), key };
        let stop = self.stop.child_token();
        let task = match identity.clone() {
            Identity::Service(service) => {
                let (cluster, zone) = (self.cluster.clone(), self.zone.clone());
                self.tasks.spawn(until(stop.clone(), async move {
                    kubernetes::follow(&cluster, &service, zone.as_deref(), &publisher).await;
                }))
            }
            Identity::Dns(dns) => {
                let lookup = self.lookup.clone();
                self.tasks.spawn(until(stop.clone(), async move {
                    dns::follow(lookup.as_ref(), &dns, &publisher).await;
                }))
            }
        };
        drop(task);
        let host = identity.host().into();
        let followed = Arc::new(Followed { backends, host, _task: stop.drop_guard() });
        self.followed.insert(identity, Arc::downgrade(&followed));
        followed
    }
}

/// Names of the sets that these sources keep in the state directory.
pub fn state_keys<'a>(sources: impl Iterator<Item = &'a BackendSource>) -> Vec<String> {
    sources
        .filter_map(|source| match source {
            BackendSource::Service(service) => Some(Identity::Service(service.clone()).state_key()),
            BackendSource::Dns(dns) => Some(Identity::Dns(dns.clone()).state_key()),
            BackendSource::Addresses(_) | BackendSource::Unresolved(_) => None,
        })
        .collect()
}

impl Identity {
    fn state_key(&self) -> String {
        match self {
            Self::Service(ServiceBackend { namespace, name, port_name, family, transport }) => {
                // As earlier releases wrote it, where it is what they had.
                let transport = if *transport == Transport::Udp { "/udp" } else { "" };
                format!("service/{namespace}/{name}/{port_name}/{family:?}{transport}")
            }
            Self::Dns(DnsBackend { host, port, record, group_by, .. }) => {
                // As earlier releases wrote it, where it is what they had.
                let record = if *record == DnsRecord::Srv { "/srv" } else { "" };
                let grouped = if *group_by == DnsGrouping::ReverseName { "/grouped" } else { "" };
                format!("dns/{host}/{port}{record}{grouped}")
            }
        }
    }

    /// The name that a client of the source would ask for.
    fn host(&self) -> String {
        match self {
            Self::Service(ServiceBackend { namespace, name, .. }) => format!("{name}.{namespace}.svc"),
            Self::Dns(DnsBackend { host, .. }) => host.as_str().trim_end_matches('.').to_owned(),
        }
    }
}

async fn until(stop: CancellationToken, work: impl Future<Output = ()>) {
    let _ = stop.run_until_cancelled_owned(work).await;
}

/// The one writer of a source's set.
pub(crate) struct Publisher {
    sender: watch::Sender<Arc<BackendSet>>,
    state: Arc<StateDir>,
    key: String,
}

impl Publisher {
    /// Publishes what the source has answered, and keeps it for a restart.
    fn answered(&self, mut endpoints: Vec<Endpoint>, reason: impl FnOnce() -> Unavailable) {
        merge::normalize(&mut endpoints);
        let unavailable = if endpoints.is_empty() { vec![reason()] } else { Vec::new() };
        let set = BackendSet { endpoints, unavailable, answered: true };
        let changed = self.sender.send_if_modified(|current| {
            let differs = **current != set;
            if differs {
                *current = Arc::new(set);
            }
            differs
        });
        if changed {
            let set = self.sender.borrow().clone();
            tracing::info!(
                source = self.key,
                backends = set.endpoints.len(),
                terminating = set.endpoints.iter().filter(|endpoint| endpoint.terminating).count(),
                reason = set.unavailable.first().map(|unavailable| unavailable.message.as_str()),
                "backends changed"
            );
            self.state.save_set(&self.key, &set.endpoints);
        }
    }

    /// Says why there are no backends. What was found before is kept.
    fn failed(&self, reason: Unavailable) {
        self.sender.send_if_modified(|current| {
            let differs = current.endpoints.is_empty() && current.unavailable.first() != Some(&reason);
            if differs {
                *current = Arc::new(BackendSet { answered: current.answered, ..unavailable(reason) });
            }
            differs
        });
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.sender.borrow().endpoints.clone()
    }
}

fn unavailable(reason: Unavailable) -> BackendSet {
    BackendSet { endpoints: Vec::new(), unavailable: vec![reason], answered: true }
}
