//! Authentication: who is let in, and what others are told.

use std::fs;

use crds::config::{ClientCa, ClientCaMode, ListenerTls};
use serde_json::json;
use sidecar::{http::ALPN, net::tls::Store};

use crate::support::{
    Backend, Client, Sidecar, Site, listener,
    tls::{Authority, Visitor, Volume},
};

async fn get_with(client: &mut Client, fields: &str) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    client.receive().await.unwrap().status()
}

#[tokio::test]
async fn a_stranger_is_told_what_to_send_and_no_backend_hears_of_it() {
    let backend = Backend::named("a").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "spark 0123456789abcdef\nci fedcba9876543210\n").unwrap();
    let fields = json!({
        "authentication": {"apiKeys": {"file": file.path()}, "allow": [{"names": ["spark"]}]},
        "accessLog": {},
    });
    let sidecar = Sidecar::with_config(fields, vec![Site::new("primary", &[backend.address])]);
    sidecar.ready().await;
    let mut client = sidecar.client().await;
    let stranger = client.get("/").await;
    assert_eq!(stranger.status(), 401);
    assert_eq!(stranger.header("www-authenticate"), Some("ApiKey realm=\"sidecar\""));
    assert!(stranger.text().contains("X-Api-Key"), "{}", stranger.text());
    assert_eq!(get_with(&mut client, "X-Api-Key: fedcba9876543210\r\n").await, 403);
    assert_eq!(backend.requests().len(), 0);
    assert_eq!(get_with(&mut client, "X-Api-Key: 0123456789abcdef\r\n").await, 200);
    let lines = sidecar.output.objects(3).await;
    let causes: Vec<_> = lines.iter().map(|line| line["cause"].clone()).collect();
    assert_eq!(causes, [json!("Unauthorized"), json!("Forbidden"), json!(null)]);
    assert!(!sidecar.output.text().contains("0123456789abcdef"));

    fs::write(file.path(), "spark a-new-key-of-spark\n").unwrap();
    sidecar.keyring.files.refresh();
    assert_eq!(get_with(&mut client, "X-Api-Key: 0123456789abcdef\r\n").await, 401, "on the same connection");
    assert_eq!(get_with(&mut client, "X-Api-Key: a-new-key-of-spark\r\n").await, 200);
}

#[tokio::test]
async fn a_certificate_lets_in_whom_a_rule_names() {
    let backend = Backend::named("a").await;
    let authority = Authority::new();
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let client_ca = Some(ClientCa { file: volume.path("ca.crt"), mode: ClientCaMode::Optional });
    let server = Store::default().server(&ListenerTls { client_ca, ..volume.listener() }, ALPN).unwrap();
    let fields = json!({"authentication": {"clientCertificates": true, "allow": [{"names": ["*.nowhere", "spark.*"]}]}});
    let config = listener("test", 0, fields);
    let sites = vec![Site::new("primary", &[backend.address])];
    let sidecar = Sidecar::start_with(config, Some(server), sites);
    sidecar.ready().await;
    for (certificate, expected) in [
        (None, 401),
        (Some(authority.issue(&["spark.analytics"])), 200),
        (Some(authority.issue(&["ci"])), 403),
    ] {
        let visitor = Visitor { certificate, ..Visitor::trusting(&authority.pem) };
        let mut secure = visitor.connect(sidecar.address(), "app.test").await.unwrap();
        assert_eq!(secure.client.get("/").await.status(), expected);
    }
}
