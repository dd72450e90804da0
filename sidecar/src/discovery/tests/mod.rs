//! Discovery against a fake API server that speaks bytes, and a fake or real DNS server.

mod api;
mod dns;
mod fake_api;

use std::{sync::Arc, time::Duration};

use crds::config::{BackendSource, ServiceBackend, UnresolvedBackend};
use tokio::time;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{cluster::Cluster, dns::Lookup, state::StateDir, *};

/// Time that any wait in a test may take: virtual where the clock is paused.
const DEADLINE: Duration = Duration::from_secs(120);

fn discovery(cluster: Arc<Cluster>, lookup: Arc<dyn Lookup>, state: StateDir) -> Discovery {
    Discovery::new(cluster, lookup, Arc::new(state), TaskTracker::new(), CancellationToken::new())
}

async fn wait(backends: &mut Backends, what: &str, holds: impl Fn(&BackendSet) -> bool) -> Arc<BackendSet> {
    let found =
        time::timeout(DEADLINE, backends.wait_for(|set| holds(set))).await.map(|set| set.unwrap().clone());
    found.unwrap_or_else(|_| panic!("{what}: {:?}", backends.borrow()))
}

fn addresses(set: &BackendSet) -> Vec<String> {
    set.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect()
}

fn minio() -> BackendSource {
    BackendSource::Service(ServiceBackend {
        namespace: "storage".to_owned(),
        name: "minio".to_owned(),
        port_name: "http".to_owned(),
        family: Default::default(),
        transport: Default::default(),
    })
}

#[test]
fn what_an_earlier_release_has_kept_is_found_and_ports_of_udp_are_kept_beside_it() {
    let BackendSource::Service(tcp) = minio() else { panic!() };
    let udp = BackendSource::Service(ServiceBackend { transport: Transport::Udp, ..tcp });
    let keys = super::state_keys([minio(), udp].iter());
    assert_eq!(keys, ["service/storage/minio/http/IPv4", "service/storage/minio/http/IPv4/udp"]);
}

#[tokio::test]
async fn static_addresses_and_what_is_unresolved_are_known_at_once() {
    let mut discovery =
        discovery(Arc::default(), Arc::new(super::dns::SystemDns::default()), StateDir::default());
    let backends = discovery.subscribe(&[
        BackendSource::Addresses(vec!["10.0.0.{1...2}:80".parse().unwrap(), "10.0.0.1:80".parse().unwrap()])
            .into(),
        BackendSource::Unresolved(UnresolvedBackend {
            what: "Service storage/minio".to_owned(),
            message: "it does not exist".to_owned(),
        })
        .into(),
    ]);
    let set = backends.borrow().clone();
    assert_eq!(addresses(&set), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(set.unavailable[0].what, "Service storage/minio");
    assert!(set.answered);
}

#[tokio::test]
async fn each_source_gives_its_weight_and_an_address_has_the_largest_of_its_own() {
    let weighted = |address: &str, weight| WeightedSource {
        source: BackendSource::Addresses(vec![address.parse().unwrap()]),
        weight,
    };
    let mut discovery =
        discovery(Arc::default(), Arc::new(super::dns::SystemDns::default()), StateDir::default());
    let sources =
        [weighted("10.0.0.{1...3}:80", 3), weighted("10.0.0.2:80", 5), weighted("10.0.0.{3...4}:80", 0)];
    let set = discovery.subscribe(&sources).borrow().clone();
    let weights: Vec<_> = set.endpoints.iter().map(|endpoint| endpoint.weight).collect();
    assert_eq!(weights, [3, 5, 3, 0]);
}
