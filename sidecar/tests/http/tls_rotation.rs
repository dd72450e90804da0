//! Certificates that change while the sidecar runs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use prometheus_client::registry::Registry;
use sidecar::net::tls::Store;
use tokio_util::task::AbortOnDropHandle;

use crate::support::{
    Backend, Client, Sidecar, Site,
    tls::{Authority, Terminator, Visitor, Volume, expired, server_config},
    until,
};

#[tokio::test]
async fn certificates_are_replaced_under_load_without_a_failed_request() {
    let (old, new, plain) = (Authority::new(), Authority::new(), Backend::named("one").await);
    let clients = Authority::new();
    let backend = Terminator::start(server_config(&old.issue(&["127.0.0.1"]), None), plain.address).await;
    let outer = Volume::of(&old.issue(&["app.test"]), &clients);
    let inner = Volume::of(&old.issue(&["spark"]), &old);
    let mut registry = Registry::default();
    let store = Store::register(&mut registry);
    let client = store.client(&inner.backend()).unwrap();
    let server = outer.server(&store);
    let sidecar =
        Sidecar::open([127, 0, 0, 1].into(), Some(server), vec![Site::within(client, &[backend.address])]);
    sidecar.ready().await;

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let address = sidecar.address();
    // Clients that trust both CAs: one keeps its connection, the others come anew for each request.
    let both = [old.pem.clone(), new.pem.clone()];
    let mut load = Vec::new();
    for keeps in [true, false, false] {
        let (stop, served, both) = (Arc::clone(&stop), Arc::clone(&served), both.clone());
        load.push(tokio::spawn(async move {
            let mut kept: Option<Client> = None;
            while !stop.load(Ordering::Relaxed) {
                let mut client = match kept.take() {
                    Some(client) => client,
                    None => connect_either(&both, address).await,
                };
                let response = client.get("/").await;
                assert_eq!(response.status(), 200, "{}", response.text());
                served.fetch_add(1, Ordering::Relaxed);
                kept = Some(client).filter(|_| keeps);
            }
        }));
    }
    let more = |count: usize| {
        let goal = served.load(Ordering::Relaxed) + count;
        let served = Arc::clone(&served);
        async move { until("requests", || served.load(Ordering::Relaxed) >= goal).await }
    };
    more(50).await;
    // First trust both, then serve by the new one, then trust it alone: as rotations of a CA go.
    let bundle = format!("{}{}", old.pem, new.pem);
    inner.replace(&[("ca.crt", &bundle)]);
    store.refresh();
    more(50).await;
    backend.set(server_config(&new.issue(&["127.0.0.1"]), None));
    outer.rotate(&new.issue(&["app.test"]), &clients);
    store.refresh();
    more(50).await;
    inner.replace(&[("ca.crt", &new.pem)]);
    store.refresh();
    more(50).await;
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert!(Visitor::trusting(&old.pem).connect(address, "app.test").await.is_err(), "the old one is gone");
}

async fn connect_either(authorities: &[String], address: std::net::SocketAddr) -> Client {
    for pem in authorities {
        if let Ok(secure) = Visitor::trusting(pem).connect(address, "app.test").await {
            return secure.client;
        }
    }
    panic!("neither certificate is served");
}

#[tokio::test]
async fn a_pair_that_does_not_fit_never_replaces_one_that_does() {
    let authority = Authority::new();
    let (first, second) = (authority.issue(&["app.test"]), authority.issue(&["app.test", "second.test"]));
    let volume = Volume::of(&first, &authority);
    let mut registry = Registry::default();
    let store = Store::register(&mut registry);
    let backend = Backend::named("one").await;
    let server = volume.server(&store);
    let sites = vec![Site::new("primary", &[backend.address])];
    let sidecar = Sidecar::open([127, 0, 0, 1].into(), Some(server), sites);
    sidecar.ready().await;
    let failures = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find(|line| line.starts_with("sidecar_tls_reload_failures_total{"));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let visitor = Visitor::trusting(&authority.pem);

    // Half of a change, as when files are renamed one after the other: no failure yet.
    volume.replace(&[("tls.crt", &second.certificate), ("tls.key", &first.key)]);
    store.refresh();
    assert_eq!(failures(), 0);
    visitor.connect(sidecar.address(), "app.test").await.unwrap();
    for _ in 0..3 {
        store.refresh();
    }
    assert_eq!(failures(), 1, "it is told once");
    visitor.connect(sidecar.address(), "app.test").await.unwrap();
    volume.replace(&[("tls.crt", "")]);
    for _ in 0..3 {
        store.refresh();
    }
    assert_eq!(failures(), 2);
    assert!(visitor.connect(sidecar.address(), "second.test").await.is_err());

    volume.rotate(&second, &authority);
    store.refresh();
    visitor.connect(sidecar.address(), "second.test").await.unwrap();
    assert_eq!(failures(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_replaced_file_is_noticed_and_its_expiry_shown() {
    let authority = Authority::new();
    let volume = Volume::of(&authority.issue_as(&["app.test"], expired), &authority);
    let mut registry = Registry::default();
    let store = Store::register(&mut registry);
    let _server = volume.server(&store);
    let expiry = || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let name = format!(
            "sidecar_tls_certificate_expiry_timestamp_seconds{{file=\"{}\"}} ",
            volume.path("tls.crt")
        );
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<i64>().ok())
    };
    let old = expiry().unwrap();
    let _following = AbortOnDropHandle::new(tokio::spawn(store.clone().follow()));
    volume.rotate(&authority.issue(&["app.test"]), &authority);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(expiry().unwrap() > old + 3_600);
}

#[tokio::test]
async fn tls_begins_and_ends_at_a_running_listener_without_closing_a_connection() {
    let (authority, backend) = (Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let mut sidecar = Sidecar::start(&[backend.address]).await;
    let mut plain = sidecar.client().await;
    assert_eq!(plain.get("/").await.text(), "one");

    sidecar.update_tls(Some(volume.server(&Store::default())));
    let visitor = Visitor::trusting(&authority.pem);
    let mut secure = visitor.connect(sidecar.address(), "app.test").await.unwrap().client;
    assert_eq!(secure.get("/").await.text(), "one");
    assert_eq!(plain.get("/").await.text(), "one");

    sidecar.update_tls(None);
    assert_eq!(sidecar.get("/").await.text(), "one");
    assert_eq!(secure.get("/").await.text(), "one");
}
