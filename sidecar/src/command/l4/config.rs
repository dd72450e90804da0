//! Arguments -> the configuration that a policy or a file would give. Pure.

use crds::{
    config::{
        Backend, BackendSource, DnsBackend, DnsGrouping, KeepAlive, OnBackendDown, OutlierDetection,
        ProxyProtocol, ServerCheck, SidecarConfig, TcpBackendLimits, TcpListener, TcpTimeouts,
        TrafficDistribution, UdpListener, WeightedSource,
    },
    units::{Duration, ListenAddress},
};
use std::num::NonZeroU32;

use super::arguments::{Transport, Wanted};

/// Names the listener in logs and metrics.
const LISTENER: &str = "sidelb";

/// Addresses that one source holds, by the schema.
const ADDRESSES: usize = 16;

const TRIES: NonZeroU32 = NonZeroU32::new(3).unwrap();
const SESSIONS: NonZeroU32 = NonZeroU32::new(16_384).unwrap();

pub(super) fn config(wanted: &Wanted) -> SidecarConfig {
    let (address, port) = (ListenAddress::Ip(wanted.listen.ip()), wanted.listen.port());
    let (name, backends, balance) = (LISTENER.to_owned(), backends(wanted), wanted.balance);
    match wanted.transport {
        Transport::Tcp => {
            let listener = TcpListener {
                name,
                address,
                port,
                protocol: None,
                tls: None,
                routes: Vec::new(),
                backends,
                backend_tls: None,
                balance,
                slow_start: None,
                traffic_distribution: TrafficDistribution::default(),
                health: ServerCheck::default(),
                outlier_detection: OutlierDetection::default(),
                backend_limits: TcpBackendLimits::default(),
                timeouts: TcpTimeouts::default(),
                keep_alive: KeepAlive::default(),
                connect_tries: TRIES,
                on_backend_down: OnBackendDown::default(),
                rebalance: None,
                proxy_protocol: ProxyProtocol::default(),
                access_log: None,
            };
            SidecarConfig { tcp: vec![listener], ..SidecarConfig::default() }
        }
        Transport::Udp => {
            let listener = UdpListener {
                name,
                address,
                port,
                backends,
                balance,
                traffic_distribution: TrafficDistribution::default(),
                // SideLB sent bytes of its own into the application; nothing is better than that.
                health: None,
                session_timeout: Duration::from_secs(60),
                max_sessions: SESSIONS,
                access_log: None,
            };
            SidecarConfig { udp: vec![listener], ..SidecarConfig::default() }
        }
    }
}

fn backends(wanted: &Wanted) -> Vec<Backend> {
    let names = wanted.ring.iter().map(|(host, port)| {
        BackendSource::Dns(DnsBackend {
            group_by: DnsGrouping::ReverseName,
            ..DnsBackend::new(host.clone(), *port)
        })
    });
    let addresses = wanted.backends.chunks(ADDRESSES).map(|some| BackendSource::Addresses(some.to_vec()));
    addresses.chain(names).map(|source| WeightedSource::from(source).into()).collect()
}
