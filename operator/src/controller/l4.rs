//! TCP and UDP listeners of a policy -> those of a SidecarConfig. Pure; no client required.

use crds::{
    config::{TcpListener, TcpRoute, Transport, UdpListener},
    policy::{TcpListenerSpec, TcpRouteSpec, UdpListenerSpec},
};

use super::{checks, resolve::Resolver, tls};

impl Resolver<'_> {
    pub(super) fn tcp(&mut self, listener: &TcpListenerSpec) -> TcpListener {
        TcpListener {
            name: listener.name.clone(),
            address: listener.address.clone(),
            port: listener.port.unwrap_or_default(),
            protocol: listener.protocol,
            tls: listener.tls.as_ref().map(tls::tcp_listener),
            routes: listener.routes.iter().map(|route| self.route(route)).collect(),
            backends: listener
                .backends
                .iter()
                .filter_map(|backend| self.backend(backend, Transport::Tcp))
                .collect(),
            backend_tls: listener.backend_tls.as_ref().map(tls::tcp_backends),
            balance: listener.balance,
            slow_start: listener.slow_start,
            traffic_distribution: listener.traffic_distribution,
            health: checks::server(&listener.health),
            outlier_detection: listener.outlier_detection.clone(),
            backend_limits: listener.backend_limits.clone(),
            timeouts: listener.timeouts.clone(),
            keep_alive: listener.keep_alive,
            connect_tries: listener.connect_tries,
            on_backend_down: listener.on_backend_down,
            rebalance: listener.rebalance,
            proxy_protocol: listener.proxy_protocol,
            access_log: listener.access_log.clone(),
        }
    }

    fn route(&mut self, route: &TcpRouteSpec) -> TcpRoute {
        let backends = route.backends.iter().filter_map(|backend| self.backend(backend, Transport::Tcp));
        TcpRoute {
            backends: backends.collect(),
            name: route.name.clone(),
            server_names: route.server_names.clone(),
        }
    }

    pub(super) fn udp(&mut self, listener: &UdpListenerSpec) -> UdpListener {
        let backends = listener.backends.iter().filter_map(|backend| self.backend(backend, Transport::Udp));
        UdpListener {
            name: listener.name.clone(),
            address: listener.address.clone(),
            port: listener.port,
            backends: backends.collect(),
            balance: listener.balance,
            traffic_distribution: listener.traffic_distribution,
            health: listener.health.as_ref().map(checks::server),
            session_timeout: listener.session_timeout,
            max_sessions: listener.max_sessions,
            access_log: listener.access_log.clone(),
        }
    }
}
