//! Unix sockets on both sides.

use std::{net::SocketAddr, path::Path, sync::Arc};

use crds::units::Address;
use sidecar::balance::{BackendSet, Endpoint};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
};

use crate::support::{
    Backend, Client, Sidecar, Site,
    tls::{Authority, Visitor, Volume},
};

/// A TCP address that leads to the socket, for the client of bare bytes.
async fn bridge_to(path: &Path) -> SocketAddr {
    let (listener, path) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), path.to_owned());
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = UnixStream::connect(&path).await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut near, &mut far).await) });
        }
    });
    address
}

/// A socket that leads to a scripted backend.
fn socket_of(path: &Path, backend: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let mut far = TcpStream::connect(backend).await.unwrap();
            tokio::spawn(async move { drop(copy_bidirectional(&mut near, &mut far).await) });
        }
    });
}

fn site(path: &Path) -> Site {
    let site = Site::new("primary", &[]);
    let endpoints = vec![Endpoint::at(Address::Unix(path.into()))];
    site.send(BackendSet { endpoints, unavailable: Vec::new(), answered: true });
    site
}

#[tokio::test]
async fn requests_go_from_socket_to_socket() {
    let (directory, backend) = (tempfile::tempdir().unwrap(), Backend::named("one").await);
    let (near, far) = (directory.path().join("near.sock"), directory.path().join("far.sock"));
    socket_of(&far, backend.address);
    let address = format!("unix:{}", near.display()).parse().unwrap();
    let sidecar = Sidecar::open(address, None, vec![site(&far)]);
    sidecar.ready().await;
    assert_eq!(sidecar.listener.address().to_string(), format!("unix:{}", near.display()));

    let mut client = Client::connect(bridge_to(&near).await).await;
    assert_eq!(client.get("/a").await.text(), "one");
    assert_eq!(client.post("/b", "body").await.text(), "one");
    assert_eq!(backend.requests()[0].header("host"), Some("app"), "the client's own");
    let labels = format!("site=\"primary\",backend=\"unix:{}\"", far.display());
    assert_eq!(
        sidecar.metric(&format!("sidecar_http_requests_total{{listener=\"test\",{labels},code=\"2xx\"}}")),
        Some(2.0)
    );
    drop(sidecar);
    crate::support::until("the socket is removed", || !near.exists()).await;
}

#[tokio::test]
async fn a_socket_that_nobody_listens_at_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let far = directory.path().join("far.sock");
    let sidecar = Sidecar::with_sites(vec![site(&far)]);
    sidecar.ready().await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 503);
    assert!(response.text().contains("there is no such socket"), "{}", response.text());
}

#[tokio::test]
async fn tls_runs_over_a_socket_too() {
    let (authority, backend) = (Authority::new(), Backend::named("one").await);
    let (directory, volume) =
        (tempfile::tempdir().unwrap(), Volume::of(&authority.issue(&["app.test"]), &authority));
    let near = directory.path().join("near.sock");
    let address = format!("unix:{}", near.display()).parse().unwrap();
    let server = Arc::clone(&volume.server(&sidecar::net::tls::Store::default()));
    let sidecar = Sidecar::open(address, Some(server), vec![Site::new("primary", &[backend.address])]);
    sidecar.ready().await;
    let bridge = bridge_to(&near).await;
    let mut secure = Visitor::trusting(&authority.pem).connect(bridge, "app.test").await.unwrap();
    assert_eq!(secure.client.get("/").await.text(), "one");
}
