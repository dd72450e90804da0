//! One EndpointSlice -> what it says of the wanted port. Pure.

use std::net::IpAddr;

use crds::config::{AddressFamily, ServiceBackend, Transport};
use k8s_openapi::api::discovery::v1::{EndpointConditions, EndpointPort, EndpointSlice};

use super::Part;
use crate::balance::{Endpoint, Nearness};

/// Reads a slice; one of the other address family says nothing. Without a `zone` every place is unknown.
pub(crate) fn read(slice: &EndpointSlice, service: &ServiceBackend, zone: Option<&str>) -> Part {
    let family = match service.family {
        AddressFamily::IPv4 => "IPv4",
        AddressFamily::IPv6 => "IPv6",
    };
    let mut part = Part::default();
    if slice.address_type != family {
        return part;
    }
    let ports = slice.ports.as_deref().unwrap_or_default();
    part.ports = ports.iter().map(|port| port.name.clone().unwrap_or_default()).collect();
    // The number may differ from slice to slice, as with named target ports. One without a number means all ports,
    // which is none that could be connected to.
    let Some(number) = ports.iter().find(|port| is_wanted(port, service)).and_then(port_number) else {
        return part;
    };
    for endpoint in &slice.endpoints {
        // Only the first address has a meaning, says the API.
        let Some(ip) = endpoint.addresses.first().and_then(|text| text.parse::<IpAddr>().ok()) else {
            continue;
        };
        let zones = endpoint.hints.iter().flat_map(|hints| hints.for_zones.iter().flatten());
        let place = Endpoint {
            zone: nearness(zone, endpoint.zone.as_deref()),
            hinted: nearness(zone, zones.map(|zone| zone.name.as_str())),
            ..Endpoint::at((ip, number))
        };
        match state(endpoint.conditions.as_ref()) {
            State::Ready => part.endpoints.push(place),
            State::Draining => part.endpoints.push(Endpoint { terminating: true, ..place }),
            State::Out => part.not_ready += 1,
        }
    }
    part
}

/// Whether one of the zones is the own one. None at all, or an own one that is not known, say nothing.
fn nearness<'a>(own: Option<&str>, zones: impl IntoIterator<Item = &'a str>) -> Nearness {
    let mut zones = zones.into_iter().peekable();
    match own {
        Some(own) if zones.peek().is_some() => {
            if zones.any(|zone| zone == own) {
                Nearness::Here
            } else {
                Nearness::Elsewhere
            }
        }
        _ => Nearness::Unknown,
    }
}

enum State {
    Ready,
    /// Terminating, and still serving.
    Draining,
    Out,
}

/// Unset conditions mean: ready is true, serving is as ready, terminating is false.
fn state(conditions: Option<&EndpointConditions>) -> State {
    let ready = conditions.and_then(|conditions| conditions.ready).unwrap_or(true);
    let serving = conditions.and_then(|conditions| conditions.serving).unwrap_or(ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating).unwrap_or(false);
    match (ready, serving, terminating) {
        // Also while terminating: that is how a Service which publishes unready addresses wants it.
        (true, _, _) => State::Ready,
        (false, true, true) => State::Draining,
        _ => State::Out,
    }
}

fn is_wanted(port: &EndpointPort, service: &ServiceBackend) -> bool {
    port.name.as_deref().unwrap_or_default() == service.port_name
        && Transport::of(port.protocol.as_deref()) == Some(service.transport)
}

fn port_number(port: &EndpointPort) -> Option<u16> {
    port.port.and_then(|number| u16::try_from(number).ok()).filter(|number| *number > 0)
}
