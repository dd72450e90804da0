//! Slices by table and property.

use std::collections::BTreeMap;

use crds::config::{AddressFamily, ServiceBackend, Transport};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{super::merge::normalize, slices::read};

fn service(port_name: &str) -> ServiceBackend {
    ServiceBackend {
        namespace: "n".to_owned(),
        name: "s".to_owned(),
        port_name: port_name.to_owned(),
        family: AddressFamily::IPv4,
        transport: Transport::Tcp,
    }
}

fn slice(family: &str, ports: Value, endpoints: Value) -> EndpointSlice {
    let slice =
        json!({"metadata": {"name": "a"}, "addressType": family, "ports": ports, "endpoints": endpoints});
    serde_json::from_value(slice).unwrap()
}

fn endpoints(slice: &EndpointSlice, port_name: &str) -> Vec<String> {
    let part = read(slice, &service(port_name), None);
    let text = |endpoint: &crate::balance::Endpoint| {
        format!("{}{}", endpoint.address, if endpoint.terminating { " terminating" } else { "" })
    };
    part.endpoints.iter().map(text).collect()
}

#[test]
fn conditions_decide_who_takes_traffic() {
    let ready = "10.0.0.1:80";
    let draining = "10.0.0.1:80 terminating";
    for (conditions, expected) in [
        (json!({}), Some(ready)),
        (json!({"ready": true}), Some(ready)),
        (json!({"ready": null, "serving": null, "terminating": null}), Some(ready)),
        (json!({"ready": false}), None),
        (json!({"ready": false, "serving": true, "terminating": true}), Some(draining)),
        (json!({"ready": false, "serving": false, "terminating": true}), None),
        (json!({"ready": false, "serving": true, "terminating": false}), None),
        (json!({"ready": true, "serving": true, "terminating": true}), Some(ready)),
    ] {
        let list = json!([{"addresses": ["10.0.0.1"], "conditions": conditions}]);
        let found = endpoints(&slice("IPv4", json!([{"name": "", "port": 80}]), list), "");
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{conditions}");
    }
}

#[test]
fn the_port_is_found_by_its_name_in_each_slice() {
    for (ports, port_name, expected) in [
        (
            json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 9}]),
            "http",
            Some("10.0.0.1:8080"),
        ),
        (json!([{"port": 80}]), "", Some("10.0.0.1:80")),
        (json!([{"name": "", "port": 80}]), "", Some("10.0.0.1:80")),
        (json!([{"name": "other", "port": 80}]), "http", None),
        (json!([{"name": "http"}]), "http", None),
        (json!([{"name": "http", "port": 80, "protocol": "UDP"}]), "http", None),
        (json!([{"name": "http", "port": 70000}]), "http", None),
        (Value::Null, "", None),
    ] {
        let list = json!([{"addresses": ["10.0.0.1"]}]);
        let found = endpoints(&slice("IPv4", ports.clone(), list), port_name);
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{ports}");
    }
}

#[test]
fn a_name_may_stand_for_a_port_of_each_transport() {
    let ports = json!([
        {"name": "dns", "port": 5353, "protocol": "UDP"},
        {"name": "dns", "port": 5354, "protocol": "TCP"},
        {"name": "dns", "port": 5355, "protocol": "SCTP"},
    ]);
    let slice = slice("IPv4", ports.clone(), json!([{"addresses": ["10.0.0.1"]}]));
    let object = json!({"subsets": [{"addresses": [{"ip": "10.0.0.1"}], "ports": ports}]});
    let object = serde_json::from_value(object).unwrap();
    for (transport, expected) in [(Transport::Tcp, "10.0.0.1:5354"), (Transport::Udp, "10.0.0.1:5353")] {
        let service = ServiceBackend { transport, ..service("dns") };
        for part in [read(&slice, &service, None), super::endpoints::read(&object, &service)] {
            let found: Vec<_> = part.endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
            assert_eq!(found, [expected]);
        }
    }
}

#[test]
fn the_other_family_and_what_is_no_address_are_left_out() {
    let ports = json!([{"port": 80}]);
    assert!(endpoints(&slice("IPv6", ports.clone(), json!([{"addresses": ["fd00::1"]}])), "").is_empty());
    assert!(endpoints(&slice("FQDN", ports.clone(), json!([{"addresses": ["a.b"]}])), "").is_empty());
    assert!(
        endpoints(&slice("IPv4", ports, json!([{"addresses": ["x"]}, {"addresses": []}])), "").is_empty()
    );
}

#[test]
fn a_place_is_told_by_zone_and_by_hints() {
    use crate::balance::Nearness::{Elsewhere, Here, Unknown};
    let endpoint = |zone: Value, hints: Value| {
        let list = json!([{"addresses": ["10.0.0.1"], "zone": zone, "hints": hints}]);
        slice("IPv4", json!([{"port": 80}]), list)
    };
    for (own, zone, hints, expected) in [
        (Some("a"), json!("a"), json!({"forZones": [{"name": "a"}]}), (Here, Here)),
        (Some("a"), json!("b"), json!({"forZones": [{"name": "c"}, {"name": "a"}]}), (Elsewhere, Here)),
        (Some("a"), json!("a"), json!({"forZones": [{"name": "b"}]}), (Here, Elsewhere)),
        (Some("a"), json!("b"), json!({"forZones": []}), (Elsewhere, Unknown)),
        (Some("a"), Value::Null, Value::Null, (Unknown, Unknown)),
        (None, json!("a"), json!({"forZones": [{"name": "a"}]}), (Unknown, Unknown)),
    ] {
        let slice = endpoint(zone, hints);
        let found = &read(&slice, &service(""), own).endpoints[0];
        assert_eq!((found.zone, found.hinted), expected, "{own:?} {slice:?}");
    }
}

proptest! {
    /// Whatever the order of slices and however often an endpoint stands in them, each address is there once, and it
    /// terminates only if no slice says that it is ready.
    #[test]
    fn slices_merge_to_each_address_once(
        all in prop::collection::vec(prop::collection::vec((0u8..6, 80u16..82, 0u8..3), 0..6), 0..5)
    ) {
        let mut expected = BTreeMap::new();
        let mut merged = Vec::new();
        for endpoints in &all {
            for (host, port, state) in endpoints {
                let conditions = match state {
                    0 => json!({"ready": true}),
                    1 => json!({"ready": false, "serving": true, "terminating": true}),
                    _ => json!({"ready": false}),
                };
                let ip = format!("10.0.0.{host}");
                if *state < 2 {
                    let terminating = expected.entry((*host, *port)).or_insert(true);
                    *terminating &= *state == 1;
                }
                let slice = slice(
                    "IPv4",
                    json!([{"name": "http", "port": port}]),
                    json!([{"addresses": [ip], "conditions": conditions}]),
                );
                merged.extend(read(&slice, &service("http"), None).endpoints);
            }
        }
        normalize(&mut merged);
        let found: Vec<_> = merged.iter().map(|endpoint| (endpoint.address.to_string(), endpoint.terminating)).collect();
        let expected: Vec<_> =
            expected.into_iter().map(|((host, port), state)| (format!("10.0.0.{host}:{port}"), state)).collect();
        prop_assert_eq!(found, expected);
    }
}
