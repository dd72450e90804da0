//! A Service's backends: EndpointSlices -> [`slices`] -> one set. core/v1 Endpoints only where there are no slices.

pub(crate) mod endpoints;
pub(crate) mod slices;

#[cfg(test)]
mod tests;

use crds::config::ServiceBackend;
use k8s_openapi::api::{core::v1::Endpoints, discovery::v1::EndpointSlice};
use kube::{Api, runtime::watcher};

use super::{
    Publisher,
    cluster::{Cluster, Seen, TroubleKind, follow as follow_objects},
};
use crate::balance::{Endpoint, Unavailable};

const SERVICE_LABEL: &str = "kubernetes.io/service-name";

/// What one object says of a Service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Part {
    /// Endpoints behind the wanted port.
    pub(crate) endpoints: Vec<Endpoint>,
    /// Endpoints of that port that are neither ready nor serving.
    pub(crate) not_ready: usize,
    /// Names of all its ports, for the message when the wanted one is not among them.
    ports: Vec<String>,
}

/// Publishes the backends of a Service until it is dropped. `zone` is this process's own, if it is known.
pub(super) async fn follow(
    cluster: &Cluster,
    service: &ServiceBackend,
    zone: Option<&str>,
    publisher: &Publisher,
) {
    if follow_slices(cluster, service, zone, publisher).await == Served::Absent {
        tracing::warn!(
            service = name(service),
            "this Kubernetes has no EndpointSlices; its Endpoints are used, which name at most 1000 addresses"
        );
        follow_endpoints(cluster, service, publisher).await;
    }
}

/// How following ended.
#[derive(PartialEq, Eq)]
enum Served {
    /// The API server has no such kind of object.
    Absent,
}

async fn follow_slices(
    cluster: &Cluster,
    service: &ServiceBackend,
    zone: Option<&str>,
    publisher: &Publisher,
) -> Served {
    let watched = watcher::Config::default().labels(&format!("{SERVICE_LABEL}={}", service.name));
    let api = |client| Api::<EndpointSlice>::namespaced(client, &service.namespace);
    let what = format!("EndpointSlices of {}", name(service));
    let mut events = follow_objects(cluster, what, api, watched, |slice| slices::read(&slice, service, zone));
    loop {
        match events.next().await {
            Seen::Objects(parts) => publish(service, parts.values(), publisher),
            Seen::Trouble(trouble) => {
                // A Service that is not there has no slices, which is an empty list: only a missing API is 404.
                if trouble.kind == TroubleKind::NotServed && cluster.lacks("discovery.k8s.io/v1").await {
                    return Served::Absent;
                }
                publisher.failed(reason(
                    service,
                    format!("its EndpointSlices cannot be read: {}", trouble.message),
                ));
            }
        }
    }
}

async fn follow_endpoints(cluster: &Cluster, service: &ServiceBackend, publisher: &Publisher) {
    let watched = watcher::Config::default().fields(&format!("metadata.name={}", service.name));
    let api = |client| Api::<Endpoints>::namespaced(client, &service.namespace);
    let what = format!("Endpoints of {}", name(service));
    let mut events = follow_objects(cluster, what, api, watched, |object| endpoints::read(&object, service));
    loop {
        match events.next().await {
            Seen::Objects(parts) => publish(service, parts.values(), publisher),
            Seen::Trouble(trouble) => {
                publisher
                    .failed(reason(service, format!("its Endpoints cannot be read: {}", trouble.message)));
            }
        }
    }
}

fn publish<'a>(service: &ServiceBackend, parts: impl Iterator<Item = &'a Part>, publisher: &Publisher) {
    let mut whole = Part::default();
    let mut objects = 0;
    for part in parts {
        objects += 1;
        whole.endpoints.extend_from_slice(&part.endpoints);
        whole.not_ready += part.not_ready;
        whole.ports.extend_from_slice(&part.ports);
    }
    let Part { endpoints, not_ready, mut ports } = whole;
    publisher.answered(endpoints, || {
        ports.sort();
        ports.dedup();
        reason(service, empty(service, objects, not_ready, &ports))
    });
}

/// Why a Service has no backends.
fn empty(service: &ServiceBackend, objects: usize, not_ready: usize, ports: &[String]) -> String {
    if objects == 0 {
        return "it has no EndpointSlices; create the Service, give it a selector, or correct its name"
            .to_owned();
    }
    if not_ready > 0 {
        return format!("none of its {not_ready} pods is ready; look at their readiness probes and logs");
    }
    if !ports.is_empty() && !ports.contains(&service.port_name) {
        return format!("it has no port named {:?}, only {ports:?}; correct the port", service.port_name);
    }
    "it has no pods; check its selector, and whether its Deployment is scaled to zero".to_owned()
}

fn reason(service: &ServiceBackend, message: String) -> Unavailable {
    Unavailable { what: name(service), message }
}

fn name(service: &ServiceBackend) -> String {
    format!("Service {}/{}", service.namespace, service.name)
}
