//! The reference of metrics against a sidecar that runs.

use std::{collections::BTreeSet, net::SocketAddr};

use crds::metrics::Metric;
use sidecar::telemetry::reference;

use crate::support::{Backend, Sidecar, config, free_port, get, listener, retry};

/// Of RFC 8037, where it stands as an example.
const KEY: &str = r#"{"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;

/// What a page tells of a family: its name, and the labels of each of its series.
type Shown<'a> = (&'a str, Vec<BTreeSet<&'a str>>);

/// In OpenMetrics text. No value of the page has a quote or a comma in it.
fn families(page: &str) -> Vec<Shown<'_>> {
    let mut families: Vec<Shown<'_>> = Vec::new();
    for line in page.lines() {
        if let Some(family) = line.strip_prefix("# TYPE ") {
            families.push((family.split(' ').next().unwrap(), Vec::new()));
        } else if !line.starts_with('#') {
            let labels = line.split_once('{').map_or("", |(_, rest)| rest.split_once('}').unwrap().0);
            let names = labels.split(',').filter_map(|label| Some(label.split_once('=')?.0));
            // Of the buckets of histograms; the reference says so once for all.
            families.last_mut().unwrap().1.push(names.filter(|name| *name != "le").collect());
        }
    }
    families
}

#[test]
fn the_reference_has_every_family_and_every_label_of_a_running_sidecar() {
    let backend = Backend::start("up");
    let down = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (plain, secure) = (free_port(), free_port());
    let sidecar = Sidecar::start(&[]);
    let set = sidecar.config().with_file_name("jwks.json");
    std::fs::write(&set, format!(r#"{{"keys": [{KEY}]}}"#)).unwrap();
    let files = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tls/p256");
    let l4 = format!(
        "tcp: [{{name: db, port: {}, backends: [{{addresses: [\"{}\", \"{down}\"]}}]}}]\n\
         udp: [{{name: names, port: {}, health: {{}}, backends: [{{addresses: [\"{}\", \"{down}\"]}}]}}]\n",
        free_port(),
        backend.address,
        free_port(),
        backend.address
    );
    let http = config(&[
        listener("plain", plain, &[backend.address, down])
            + "  sidekick: {metrics: true}\n  rateLimits: [{name: all, requests: 1000}]\n",
        listener("secure", secure, &[backend.address])
            + &format!("  tls: {{certificateFile: {files}.crt, keyFile: {files}.key}}\n")
            + &format!("  authentication: {{jwt: {{issuer: a, jwks: {{file: {}}}}}}}\n", set.display()),
    ]);
    sidecar.write(&(http + &l4));
    sidecar.wait_ready();
    let plain = SocketAddr::from(([127, 0, 0, 1], plain));
    assert_eq!(get(plain, "/"), Some((200, "up".to_owned())));
    let page = retry("a backend that was down", || {
        let (_, page) = get(sidecar.admin, "/metrics")?;
        page.contains(&format!("last_down_seconds{{listener=\"plain\",site=\"s\",backend=\"{down}\"}}"))
            .then_some(page)
    });
    let (_, sidekicks) = get(plain, "/.prometheus/metrics").unwrap();

    let groups = reference::groups();
    let listed: Vec<&Metric> = groups.iter().flat_map(|group| group.metrics.iter().copied()).collect();
    let shown: Vec<_> = families(&page).into_iter().chain(families(&sidekicks)).collect();
    for (name, series) in &shown {
        let metric = listed.iter().find(|metric| metric.name == *name);
        let metric = metric.unwrap_or_else(|| panic!("the reference lacks {name}"));
        assert!(!series.is_empty(), "{name}: what are its labels?");
        for labels in series {
            assert_eq!(labels, &metric.labels.iter().copied().collect(), "{name}");
        }
    }
    let names: BTreeSet<_> = shown.iter().map(|(name, _)| *name).collect();
    for metric in listed {
        assert!(names.contains(metric.name), "{} is in the reference alone", metric.name);
    }
}
