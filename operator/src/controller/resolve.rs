//! Backends of a policy -> backends of a SidecarConfig. Pure; no client required.
//!
//! What cannot be resolved becomes a backend that says why, so that the sidecar starts all the same and answers 503 with
//! the reason, and a problem for the condition ResolvedRefs.

use std::collections::BTreeSet;

use crds::{
    config::{
        AddressFamily, Backend, BackendSource, DnsBackend, HttpListener, PolicyReference, ServiceBackend,
        SidecarConfig, Site, Transport, UnresolvedBackend, WeightedSource,
    },
    names::annotations,
    policy::{BackendReference, HttpListenerSpec, ServicePort, ServiceReference, SidecarPolicy},
};

use super::{
    cache::Key,
    facts::{PortFact, ServiceFact},
    stack, tls,
    world::World,
};

/// What a policy comes to in this world.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Resolution {
    pub config: SidecarConfig,
    /// Each once, in the order in which the policy names them.
    pub problems: Vec<Problem>,
    /// Namespaces whose EndpointSlices the policy's pods must read.
    pub slices_of: BTreeSet<String>,
}

/// A reference that does not resolve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Reason of the condition.
    pub reason: &'static str,
    /// What is missing, as in `Service storage/minio`.
    pub what: String,
    /// Why, and what to do about it.
    pub message: String,
}

/// Resolves every listener of `policy`.
pub(super) fn resolve(key: &Key, policy: &SidecarPolicy, world: &World) -> Resolution {
    let mut resolver =
        Resolver { namespace: &key.namespace, world, problems: Vec::new(), slices_of: BTreeSet::new() };
    let http = policy.spec.http.iter().map(|listener| resolver.listener(listener)).collect();
    let tcp = policy.spec.tcp.iter().map(|listener| resolver.tcp(listener)).collect();
    let udp = policy.spec.udp.iter().map(|listener| resolver.udp(listener)).collect();
    let config = SidecarConfig {
        policy: Some(PolicyReference {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            generation: policy.metadata.generation.unwrap_or_default(),
        }),
        drain_timeout: policy.spec.injection.drain_timeout,
        http,
        tcp,
        udp,
    };
    Resolution { config, problems: resolver.problems, slices_of: resolver.slices_of }
}

pub(super) struct Resolver<'a> {
    /// Of the policy.
    namespace: &'a str,
    world: &'a World,
    problems: Vec<Problem>,
    slices_of: BTreeSet<String>,
}

impl Resolver<'_> {
    fn listener(&mut self, listener: &HttpListenerSpec) -> HttpListener {
        HttpListener {
            name: listener.name.clone(),
            address: listener.address.clone(),
            port: listener.port.unwrap_or_default(),
            tls: listener.tls.as_ref().map(tls::listener),
            sites: listener
                .sites
                .iter()
                .map(|site| Site {
                    name: site.name.clone(),
                    backends: site
                        .backends
                        .iter()
                        .filter_map(|backend| self.backend(backend, Transport::Tcp))
                        .collect(),
                    tls: site.tls.as_ref().map(tls::site),
                    protocol: site.protocol,
                })
                .collect(),
            health: listener.health.clone(),
            balance: listener.balance,
            hash_header: listener.hash_header.clone(),
            slow_start: listener.slow_start,
            traffic_distribution: listener.traffic_distribution,
            outlier_detection: listener.outlier_detection.clone(),
            backend_limits: listener.backend_limits.clone(),
            timeouts: listener.timeouts.clone(),
            forwarded_headers: listener.forwarded_headers,
            down_answer: listener.down_answer,
            sidekick: listener.sidekick,
            access_log: listener.access_log.clone(),
            tracing: listener.tracing.as_ref().map(stack::tracing),
            max_body_size: listener.max_body_size.clone(),
            rate_limits: listener.rate_limits.clone(),
            authentication: listener.authentication.as_ref().map(stack::authentication),
        }
    }

    /// The schema lets through exactly one of the fields, so that `None` is never seen.
    pub(super) fn backend(&mut self, backend: &BackendReference, transport: Transport) -> Option<Backend> {
        let source = if let Some(service) = &backend.service {
            self.service(service, transport)
        } else if let Some(addresses) = &backend.addresses {
            BackendSource::Addresses(addresses.clone())
        } else {
            BackendSource::Dns(backend.dns.clone()?)
        };
        Some(WeightedSource { source, weight: backend.weight }.into())
    }

    fn service(&mut self, reference: &ServiceReference, transport: Transport) -> BackendSource {
        let namespace = reference.namespace.as_deref().unwrap_or(self.namespace);
        match self.find(reference, &Key::new(namespace, &reference.name), transport) {
            Ok(source) => source,
            Err(problem) => {
                let unresolved =
                    UnresolvedBackend { what: problem.what.clone(), message: problem.message.clone() };
                if !self.problems.contains(&problem) {
                    self.problems.push(problem);
                }
                BackendSource::Unresolved(unresolved)
            }
        }
    }

    fn find(
        &mut self,
        reference: &ServiceReference,
        key: &Key,
        transport: Transport,
    ) -> Result<BackendSource, Problem> {
        self.check_consent(key)?;
        let Some(service) = self.world.services.get(key) else {
            // The right is granted all the same: it hangs on consent, and a Service that is replaced is gone for a moment.
            self.slices_of.insert(key.namespace.clone());
            return Err(Problem {
                reason: "ServiceNotFound",
                what: format!("Service {key}"),
                message: format!(
                    "Service {key} does not exist: create it, or correct its name in the policy"
                ),
            });
        };
        if let Some(host) = &service.external_name {
            return external(key, host, &service, &reference.port, transport);
        }
        self.slices_of.insert(key.namespace.clone());
        let port = port(key, &service, &reference.port, transport)?;
        Ok(BackendSource::Service(ServiceBackend {
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            port_name: port.name.clone(),
            family: if service.ipv6 { AddressFamily::IPv6 } else { AddressFamily::IPv4 },
            transport,
        }))
    }

    /// A Service of another namespace is used only with that namespace's consent; whether the Service exists is not
    /// told without it.
    fn check_consent(&self, key: &Key) -> Result<(), Problem> {
        if key.namespace == self.namespace {
            return Ok(());
        }
        let (owner, user) = (&key.namespace, self.namespace);
        match self.world.namespaces.get(&Key::new("", owner)) {
            Some(namespace) if namespace.exports_to(user) => Ok(()),
            Some(_) => Err(Problem {
                reason: "RefNotPermitted",
                what: format!("Service {key}"),
                message: format!(
                    "Namespace {owner} does not export its Services to namespace {user}: its owner must name {user} in the \
                     annotation {} of Namespace {owner} (namespaces with commas between, or *)",
                    annotations::EXPORT_TO
                ),
            }),
            None => Err(Problem {
                reason: "NamespaceNotFound",
                what: format!("Service {key}"),
                message: format!(
                    "Namespace {owner} does not exist: create it with the annotation {}={user}, or correct its name in the policy",
                    annotations::EXPORT_TO
                ),
            }),
        }
    }
}

fn port<'a>(
    key: &Key,
    service: &'a ServiceFact,
    wanted: &ServicePort,
    transport: Transport,
) -> Result<&'a PortFact, Problem> {
    let is_wanted = |port: &&PortFact| match wanted {
        ServicePort::Number(number) => port.number == *number,
        ServicePort::Name(name) => port.name == *name || number(name) == Some(port.number),
    };
    let ports = || service.ports.iter().filter(|port| port.transport == Some(transport));
    ports().find(is_wanted).ok_or_else(|| {
        let ports: Vec<String> = ports().map(describe).collect();
        let existing = if ports.is_empty() { "none".to_owned() } else { ports.join(", ") };
        Problem {
            reason: "PortNotFound",
            what: format!("Service {key} port {wanted}"),
            message: format!(
                "Service {key} has no {} port {wanted}; it has {existing}: correct the port in the policy or in the Service",
                transport.as_str(),
            ),
        }
    })
}

/// A number in quotes is a text in YAML, and no port's name: names have a letter.
fn number(name: &str) -> Option<u16> {
    name.parse().ok().filter(|number| *number != 0)
}

fn describe(port: &PortFact) -> String {
    if port.name.is_empty() { port.number.to_string() } else { format!("{} ({})", port.number, port.name) }
}

/// A Service of type ExternalName has no endpoints: its name is asked of DNS. Its ports may be left out, and then a
/// number stands for itself.
fn external(
    key: &Key,
    host: &str,
    service: &ServiceFact,
    wanted: &ServicePort,
    transport: Transport,
) -> Result<BackendSource, Problem> {
    let port = match wanted {
        ServicePort::Number(number) => *number,
        ServicePort::Name(name) => match number(name) {
            Some(number) => number,
            None => port(key, service, wanted, transport)?.number,
        },
    };
    let host = host.parse().map_err(|error| Problem {
        reason: "ExternalNameInvalid",
        what: format!("Service {key}"),
        message: format!("externalName of Service {key}: {error}"),
    })?;
    Ok(BackendSource::Dns(DnsBackend::new(host, port)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crds::{
        config::{Balance, TrafficDistribution},
        units::Duration,
    };

    use super::*;
    use crate::controller::{facts::NamespaceFact, testing};

    fn resolve_backend(world: &World, backend: &str) -> Resolution {
        testing::policy(world, "analytics", "data", &format!("backends: [{backend}]"));
        let key = Key::new("analytics", "data");
        let fact = world.policies.get(&key).unwrap();
        resolve(&key, fact.policy.as_ref().unwrap(), world)
    }

    fn source(resolution: &Resolution) -> BackendSource {
        resolution.config.http[0].sites[0].backends[0].source().unwrap()
    }

    fn world() -> World {
        let world = World::default();
        for (name, export_to) in [("analytics", ""), ("storage", "analytics"), ("private", "other")] {
            world.namespaces.set(Key::new("", name), Some(NamespaceFact::exporting_to(export_to)));
        }
        for namespace in ["analytics", "storage", "private"] {
            testing::service(&world, namespace, "minio", &[("api", 9000), ("console", 9001)]);
        }
        testing::service(&world, "analytics", "plain", &[("", 80)]);
        let external =
            ServiceFact { external_name: Some("s3.example.com".to_owned()), ..ServiceFact::default() };
        world.services.set(Key::new("analytics", "external"), Some(external));
        let mut dual = ServiceFact { ipv6: true, ..ServiceFact::default() };
        dual.ports.push(PortFact { number: 53, name: "dns".to_owned(), transport: Some(Transport::Udp) });
        dual.ports.push(PortFact { number: 53, name: "dns-tcp".to_owned(), transport: Some(Transport::Tcp) });
        world.services.set(Key::new("analytics", "six"), Some(dual));
        world
    }

    #[test]
    fn a_service_port_is_resolved_by_number_and_by_name() {
        let world = world();
        for (backend, namespace, name, port_name, family) in [
            ("service: {name: minio, port: 9000}", "analytics", "minio", "api", AddressFamily::IPv4),
            ("service: {name: minio, port: console}", "analytics", "minio", "console", AddressFamily::IPv4),
            ("service: {name: plain, port: 80}", "analytics", "plain", "", AddressFamily::IPv4),
            ("service: {name: plain, port: '80'}", "analytics", "plain", "", AddressFamily::IPv4),
            (
                "service: {name: minio, namespace: storage, port: api}",
                "storage",
                "minio",
                "api",
                AddressFamily::IPv4,
            ),
            ("service: {name: six, port: 53}", "analytics", "six", "dns-tcp", AddressFamily::IPv6),
        ] {
            let resolution = resolve_backend(&world, &format!("{{{backend}}}"));
            assert_eq!(resolution.problems, [], "{backend}");
            assert_eq!(resolution.slices_of, [namespace.to_owned()].into(), "{backend}");
            let expected = ServiceBackend {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
                port_name: port_name.to_owned(),
                family,
                transport: Transport::Tcp,
            };
            assert_eq!(source(&resolution), BackendSource::Service(expected), "{backend}");
        }
    }

    #[test]
    fn a_udp_listener_has_the_udp_ports_of_a_service() {
        let world = world();
        testing::policy(&world, "analytics", "data", "backends: [{addresses: ['10.0.0.1:80']}]");
        let key = Key::new("analytics", "data");
        let mut policy = Arc::unwrap_or_clone(world.policies.get(&key).unwrap().policy.clone().unwrap());
        let listener = |port: serde_json::Value| {
            serde_json::from_value(serde_json::json!({
                "name": "dns", "port": 5353, "balance": "SourceHash", "trafficDistribution": "None", "sessionTimeout": "7s",
                "maxSessions": 9, "health": {"port": 8080}, "backends": [{"service": {"name": "six", "port": port}}],
            }))
            .unwrap()
        };
        policy.spec.udp = vec![listener(53.into()), listener("dns-tcp".into())];
        let wanted = policy.spec.udp[0].clone();
        let resolution = resolve(&key, &policy, &world);
        let [good, bad] = &resolution.config.udp[..] else { panic!("{:?}", resolution.config.udp) };
        let expected = ServiceBackend {
            namespace: "analytics".to_owned(),
            name: "six".to_owned(),
            port_name: "dns".to_owned(),
            family: AddressFamily::IPv6,
            transport: Transport::Udp,
        };
        assert_eq!(good.backends[0].source(), Some(BackendSource::Service(expected)));
        assert_eq!((&good.name, &good.address, good.port), (&wanted.name, &wanted.address, 5353));
        assert_eq!((good.balance, good.traffic_distribution), (wanted.balance, wanted.traffic_distribution));
        assert_eq!((good.session_timeout, good.max_sessions), (wanted.session_timeout, wanted.max_sessions));
        assert_eq!(good.health, wanted.health.as_ref().map(super::super::checks::server));
        let [problem] = &resolution.problems[..] else { panic!("{:?}", resolution.problems) };
        assert!(problem.message.contains("has no UDP port dns-tcp; it has 53 (dns)"), "{}", problem.message);
        assert!(matches!(bad.backends[0].source(), Some(BackendSource::Unresolved(_))));
    }

    #[test]
    fn what_does_not_resolve_says_why_and_what_to_do() {
        let world = world();
        for (backend, reason, what, remedy, slices) in [
            ("name: gone, port: 80", "ServiceNotFound", "Service analytics/gone", "create it", true),
            (
                "name: minio, port: 80",
                "PortNotFound",
                "Service analytics/minio port 80",
                "9000 (api), 9001 (console)",
                true,
            ),
            ("name: six, port: dns", "PortNotFound", "Service analytics/six port dns", "53 (dns-tcp)", true),
            (
                "name: minio, namespace: private, port: 9000",
                "RefNotPermitted",
                "Service private/minio",
                "annotation sidecar.io/export-to of Namespace private",
                false,
            ),
            (
                "name: gone, namespace: private, port: 9000",
                "RefNotPermitted",
                "Service private/gone",
                "analytics",
                false,
            ),
            (
                "name: minio, namespace: gone, port: 9000",
                "NamespaceNotFound",
                "Service gone/minio",
                "create it",
                false,
            ),
            (
                "name: external, port: https",
                "PortNotFound",
                "Service analytics/external port https",
                "it has none",
                false,
            ),
        ] {
            let resolution = resolve_backend(&world, &format!("{{service: {{{backend}}}}}"));
            let [problem] = &resolution.problems[..] else { panic!("{backend}: {:?}", resolution.problems) };
            assert_eq!((problem.reason, problem.what.as_str()), (reason, what), "{backend}");
            assert!(problem.message.contains(remedy), "{backend}: {}", problem.message);
            let unresolved = UnresolvedBackend { what: what.to_owned(), message: problem.message.clone() };
            assert_eq!(source(&resolution), BackendSource::Unresolved(unresolved), "{backend}");
            assert_eq!(!resolution.slices_of.is_empty(), slices, "{backend}");
        }
    }

    #[test]
    fn an_external_name_is_asked_of_dns_and_needs_no_right() {
        for port in ["443", "'443'"] {
            let backend = format!("{{service: {{name: external, port: {port}}}}}");
            let resolution = resolve_backend(&world(), &backend);
            let dns = DnsBackend::new("s3.example.com".parse().unwrap(), 443);
            assert_eq!(source(&resolution), BackendSource::Dns(dns));
            assert!(resolution.slices_of.is_empty());
        }
    }

    #[test]
    fn what_the_policy_says_of_the_balance_reaches_the_sidecar() {
        let world = world();
        testing::policy(
            &world,
            "analytics",
            "data",
            "backends: [{service: {name: minio, port: 9000}, weight: 3}, {addresses: ['10.0.0.1:80'], weight: 0}]",
        );
        let key = Key::new("analytics", "data");
        let mut policy = Arc::unwrap_or_clone(world.policies.get(&key).unwrap().policy.clone().unwrap());
        let listener = &mut policy.spec.http[0];
        listener.balance = Balance::HeaderHash;
        listener.hash_header = Some("X-Tenant".to_owned());
        listener.slow_start = Some(Duration::from_secs(30));
        listener.traffic_distribution = TrafficDistribution::PreferSameZone;
        listener.outlier_detection.consecutive_errors = 7;
        listener.backend_limits.max_requests = Some(100);
        listener.timeouts.total = Some(Duration::from_secs(60));
        listener.max_body_size = Some("10Mi".parse().unwrap());
        let wanted = listener.clone();
        let resolved = &resolve(&key, &policy, &world).config.http[0];
        let weights: Vec<_> = resolved.sites[0].backends.iter().map(|backend| backend.weight).collect();
        assert_eq!(weights, [3, 0]);
        assert_eq!((resolved.balance, &resolved.hash_header), (wanted.balance, &wanted.hash_header));
        assert_eq!(resolved.slow_start, wanted.slow_start);
        assert_eq!(resolved.traffic_distribution, wanted.traffic_distribution);
        assert_eq!(resolved.outlier_detection, wanted.outlier_detection);
        assert_eq!(resolved.backend_limits, wanted.backend_limits);
        assert_eq!(resolved.timeouts, wanted.timeouts);
        assert_eq!(resolved.max_body_size, wanted.max_body_size);
    }

    #[test]
    fn the_same_problem_is_told_once() {
        let resolution =
            resolve_backend(&world(), "{service: {name: gone, port: 80}}, {service: {name: gone, port: 80}}");
        assert_eq!(resolution.problems.len(), 1);
    }
}
