//! One core/v1 Endpoints object -> what it says of the wanted port. Pure.

use std::net::IpAddr;

use crds::config::{AddressFamily, ServiceBackend, Transport};
use k8s_openapi::api::core::v1::Endpoints;

use super::Part;
use crate::balance::Endpoint;

pub(crate) fn read(object: &Endpoints, service: &ServiceBackend) -> Part {
    let mut part = Part::default();
    for subset in object.subsets.iter().flatten() {
        let ports = subset.ports.as_deref().unwrap_or_default();
        part.ports.extend(ports.iter().map(|port| port.name.clone().unwrap_or_default()));
        let wanted = ports.iter().find(|port| {
            port.name.as_deref().unwrap_or_default() == service.port_name
                && Transport::of(port.protocol.as_deref()) == Some(service.transport)
        });
        let Some(number) = wanted.and_then(|port| u16::try_from(port.port).ok()) else { continue };
        let addresses =
            subset.addresses.iter().flatten().filter_map(|address| address.ip.parse::<IpAddr>().ok());
        let of_family = addresses.filter(|ip| ip.is_ipv4() == (service.family == AddressFamily::IPv4));
        part.endpoints.extend(of_family.map(|ip| Endpoint::at((ip, number))));
        part.not_ready += subset.not_ready_addresses.iter().flatten().count();
    }
    part
}
