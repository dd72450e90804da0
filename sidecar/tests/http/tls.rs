//! TLS with clients and with backends.

use std::{sync::Arc, time::Duration};

use crds::config::{BackendTls, ClientCa, ClientCaMode, ListenerTls, SelfSigned, TlsVersion};
use rustls::ProtocolVersion;
use sidecar::{
    balance::{BackendSet, Endpoint},
    http::ALPN,
    net::tls::Store,
};
use tokio::io::AsyncReadExt;

use crate::support::{
    Backend, Sidecar, Site,
    h2::H2Client,
    tls::{Authority, Terminator, Visitor, Volume, expired, server_config, server_config_of},
};

/// A sidecar whose one backend is behind TLS and is met by these settings.
async fn towards(settings: &BackendTls, backend: &Terminator) -> Sidecar {
    let client = Store::default().client(settings).unwrap();
    let sidecar = Sidecar::open([127, 0, 0, 1].into(), None, vec![Site::within(client, &[backend.address])]);
    sidecar.ready().await;
    sidecar
}

/// A sidecar within TLS before one plain backend.
async fn before(settings: &ListenerTls, backend: &Backend) -> Sidecar {
    let server = Store::default().server(settings, ALPN).unwrap();
    let sites = vec![Site::new("primary", &[backend.address])];
    let sidecar = Sidecar::open([127, 0, 0, 1].into(), Some(server), sites);
    sidecar.ready().await;
    sidecar
}

#[tokio::test]
async fn a_listener_speaks_tls_1_2_and_1_3_and_agrees_on_what_the_client_speaks() {
    let (authority, backend) = (Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let sidecar = before(&volume.listener(), &backend).await;
    for (version, expected) in [
        (&rustls::version::TLS12, ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let visitor =
            Visitor { versions: vec![version], alpn: vec![b"http/1.1"], ..Visitor::trusting(&authority.pem) };
        let mut secure = visitor.connect(sidecar.address(), "app.test").await.unwrap();
        assert_eq!((secure.version, secure.alpn), (Some(expected), Some(b"http/1.1".to_vec())));
        assert_eq!(secure.client.get("/").await.text(), "one");
        assert_eq!(secure.client.get("/").await.text(), "one", "the connection is kept");

        let visitor = Visitor { alpn: vec![b"http/1.1", b"h2"], ..visitor };
        let secure = visitor.connect(sidecar.address(), "app.test").await.unwrap();
        assert_eq!(secure.alpn.as_deref(), Some(&b"h2"[..]), "the best that both speak");
        let client = H2Client::over(secure.client.into_stream()).await;
        assert_eq!(client.get("/").await.text(), "one");
        assert_eq!(client.get("/").await.text(), "one");
    }
}

#[tokio::test]
async fn versions_outside_of_the_range_are_not_spoken() {
    let (authority, backend) = (Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let (old, new) = (TlsVersion::V12, TlsVersion::V13);
    for (min_version, max_version, with_12, with_13) in [(new, new, false, true), (old, old, true, false)] {
        let sidecar = before(&ListenerTls { min_version, max_version, ..volume.listener() }, &backend).await;
        for (version, spoken) in [(&rustls::version::TLS12, with_12), (&rustls::version::TLS13, with_13)] {
            let visitor = Visitor { versions: vec![version], ..Visitor::trusting(&authority.pem) };
            assert_eq!(visitor.connect(sidecar.address(), "app.test").await.is_ok(), spoken, "{version:?}");
        }
    }
}

#[tokio::test]
async fn a_client_of_the_ca_is_let_in_and_one_of_another_never() {
    let (authority, other, backend) = (Authority::new(), Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    for (mode, without) in [(ClientCaMode::Required, false), (ClientCaMode::Optional, true)] {
        let client_ca = Some(ClientCa { file: volume.path("ca.crt"), mode });
        let sidecar = before(&ListenerTls { client_ca, ..volume.listener() }, &backend).await;
        let table = [
            (Some(authority.issue(&["spark"])), true),
            (Some(other.issue(&["spark"])), false),
            (None, without),
        ];
        for (certificate, served) in table {
            let visitor = Visitor { certificate, ..Visitor::trusting(&authority.pem) };
            // In TLS 1.3 a client learns of its refusal only from its first read.
            let answer = match visitor.connect(sidecar.address(), "app.test").await {
                Ok(mut secure) => {
                    secure.client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").await;
                    secure.client.receive().await.is_ok()
                }
                Err(_) => false,
            };
            assert_eq!(answer, served, "{mode:?}, with a certificate: {}", visitor.certificate.is_some());
        }
    }
    assert_eq!(backend.requests().len(), 3);
}

#[tokio::test]
async fn plain_text_at_a_listener_within_tls_reaches_no_backend() {
    let (authority, backend) = (Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let sidecar = before(&volume.listener(), &backend).await;
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\nHost: app\r\n\r\n").await;
    assert!(client.receive().await.is_err());
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn a_self_signed_certificate_is_told_as_pem_and_serves_its_hosts() {
    let backend = Backend::named("one").await;
    let hosts = vec!["app.test".parse().unwrap(), "127.0.0.1".parse().unwrap()];
    let settings = ListenerTls { self_signed: Some(SelfSigned { hosts }), ..ListenerTls::default() };
    let store = Store::default();
    let server = store.server(&settings, ALPN).unwrap();
    let pem = server.self_signed_pem().unwrap().to_owned();
    let sidecar =
        Sidecar::open([127, 0, 0, 1].into(), Some(server), vec![Site::new("primary", &[backend.address])]);
    sidecar.ready().await;
    for name in ["app.test", "127.0.0.1"] {
        let mut secure = Visitor::trusting(&pem).connect(sidecar.address(), name).await.unwrap();
        assert_eq!(secure.client.get("/").await.text(), "one");
    }
    assert!(Visitor::trusting(&pem).connect(sidecar.address(), "other.test").await.is_err());
}

#[tokio::test]
async fn a_backend_is_asked_for_by_the_name_it_was_found_by_unless_the_settings_name_another() {
    let (authority, plain) = (Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["unused"]), &authority);
    let pair = authority.issue(&["s3.test", "other.test", "127.0.0.1"]);
    let backend = Terminator::start(server_config(&pair, None), plain.address).await;
    for (server_name, host, expected) in [
        (None, Some("s3.test"), Some("s3.test")),
        (Some("other.test"), Some("s3.test"), Some("other.test")),
        // An address is verified, but never asked for: SNI has names alone.
        (None, None, None),
    ] {
        let server_name = server_name.map(|name: &str| name.parse().unwrap());
        let settings = BackendTls { server_name, ..volume.backend() };
        let client = Store::default().client(&settings).unwrap();
        let site = Site::within(client, &[]);
        let host = host.map(Arc::from);
        let endpoints = vec![Endpoint { host, ..Endpoint::at(backend.address) }];
        site.send(BackendSet { endpoints, unavailable: Vec::new(), answered: true });
        let sidecar = Sidecar::open([127, 0, 0, 1].into(), None, vec![site]);
        sidecar.ready().await;
        let response = sidecar.get("/").await;
        assert_eq!((response.status(), response.text()), (200, "one".to_owned()));
        assert_eq!(backend.seen().last().unwrap().name.as_deref(), expected);
    }
}

#[tokio::test]
async fn a_backend_that_asks_for_a_certificate_gets_it() {
    let (authority, plain) = (Authority::new(), Backend::named("one").await);
    let config = server_config(&authority.issue(&["127.0.0.1"]), Some(&authority));
    let backend = Terminator::start(config, plain.address).await;
    let volume = Volume::of(&authority.issue(&["spark"]), &authority);
    let settings = BackendTls { client_certificate: Some(volume.key_pair()), ..volume.backend() };
    let sidecar = towards(&settings, &backend).await;
    assert_eq!(sidecar.get("/").await.text(), "one");
    assert!(backend.seen().iter().all(|seen| seen.with_certificate));

    let sidecar = towards(&volume.backend(), &backend).await;
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 502);
    assert!(response.text().contains("CertificateRequired"), "{}", response.text());
}

#[tokio::test]
async fn what_is_wrong_with_a_backends_certificate_is_told_in_the_502() {
    let (authority, other, plain) =
        (Authority::new(), Authority::named("other"), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["unused"]), &authority);
    for (pair, told) in [
        (
            Authority::new().issue(&["127.0.0.1"]),
            "the certificate is of a CA that is not trusted here, though one of the same name is",
        ),
        (
            other.issue(&["127.0.0.1"]),
            "the certificate is of a CA that is not trusted here: name its CA in the settings of tls",
        ),
        (authority.issue(&["s3.test"]), "the certificate is not for 127.0.0.1 but for"),
        (authority.issue_as(&["127.0.0.1"], expired), "the certificate expired 60 minutes ago: renew it"),
    ] {
        let backend = Terminator::start(server_config(&pair, None), plain.address).await;
        let sidecar = towards(&volume.backend(), &backend).await;
        let response = sidecar.get("/").await;
        assert_eq!(response.status(), 502, "{told}");
        let line = format!("site primary backend {}: cannot connect: TLS: {told}", backend.address);
        assert!(response.text().contains(&line), "{}", response.text());

        let skipping = BackendTls { insecure_skip_verify: true, ..BackendTls::default() };
        assert_eq!(towards(&skipping, &backend).await.get("/").await.text(), "one");
    }
    let plain = Backend::start(|mut visit| async move {
        if visit.reader.read_u8().await.is_ok() {
            visit.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n").await;
        }
    })
    .await;
    let site = Site::within(Store::default().client(&volume.backend()).unwrap(), &[plain.address]);
    let sidecar = Sidecar::open([127, 0, 0, 1].into(), None, vec![site]);
    let response = sidecar.get("/").await;
    assert_eq!(response.status(), 502);
    assert!(
        response.text().contains("TLS: the other side speaks no TLS on this port"),
        "{}",
        response.text()
    );
}

#[tokio::test]
async fn a_failed_handshake_sends_any_request_to_another_backend() {
    let (authority, plain) = (Authority::new(), Backend::named("one").await);
    let good = Terminator::start(server_config(&authority.issue(&["127.0.0.1"]), None), plain.address).await;
    let bad = Authority::named("other").issue(&["127.0.0.1"]);
    let bad = Terminator::start(server_config(&bad, None), plain.address).await;
    let volume = Volume::of(&authority.issue(&["unused"]), &authority);
    let client = Store::default().client(&volume.backend()).unwrap();
    let site = Site::within(client, &[bad.address, good.address]);
    let sidecar = Sidecar::open([127, 0, 0, 1].into(), None, vec![site]);
    for _ in 0..10 {
        assert_eq!(sidecar.client().await.post("/", "body").await.text(), "one");
    }
    assert!(bad.seen().is_empty(), "no byte of a request goes to who is not trusted");
}

#[tokio::test]
async fn a_backend_is_met_in_the_versions_that_are_allowed_and_in_no_other() {
    let (authority, plain) = (Authority::new(), Backend::named("one").await);
    let pair = authority.issue(&["127.0.0.1"]);
    let volume = Volume::of(&authority.issue(&["unused"]), &authority);
    for (min_version, max_version, met) in [
        (TlsVersion::V12, TlsVersion::V13, ProtocolVersion::TLSv1_3),
        (TlsVersion::V12, TlsVersion::V12, ProtocolVersion::TLSv1_2),
        (TlsVersion::V13, TlsVersion::V13, ProtocolVersion::TLSv1_3),
    ] {
        let backend = Terminator::start(server_config(&pair, None), plain.address).await;
        let settings = BackendTls { min_version, max_version, ..volume.backend() };
        assert_eq!(towards(&settings, &backend).await.get("/").await.text(), "one");
        let versions: Vec<_> = backend.seen().iter().map(|seen| seen.version).collect();
        assert!(versions.iter().all(|version| *version == Some(met)), "{min_version:?}: {versions:?}");
    }
    let old = server_config_of(&[&rustls::version::TLS12], &pair, None);
    let backend = Terminator::start(old, plain.address).await;
    let settings = BackendTls { min_version: TlsVersion::V13, ..volume.backend() };
    assert_eq!(towards(&settings, &backend).await.get("/").await.status(), 502);
    assert!(backend.seen().is_empty(), "no byte of a request goes in a version that is not wanted");
}

#[tokio::test]
async fn sessions_with_a_backend_are_resumed() {
    let authority = Authority::new();
    let closing = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\none";
    let plain = Backend::answering(closing).await;
    let config = server_config(&authority.issue(&["127.0.0.1"]), None);
    let backend = Terminator::start(config, plain.address).await;
    let volume = Volume::of(&authority.issue(&["unused"]), &authority);
    let sidecar = towards(&volume.backend(), &backend).await;
    for _ in 0..4 {
        assert_eq!(sidecar.get("/").await.text(), "one");
    }
    // The check reads no answer, and so takes no ticket home; requests do.
    let resumed = backend.seen().iter().filter(|seen| seen.resumed).count();
    assert_eq!(resumed, 3, "{:?}", backend.seen());
}

#[tokio::test]
async fn a_client_that_says_nothing_keeps_nobody_out() {
    let (authority, backend) = (Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let sidecar = before(&volume.listener(), &backend).await;
    let mut silent = Vec::new();
    for _ in 0..64 {
        silent.push(sidecar.client().await);
    }
    let visitor = Visitor::trusting(&authority.pem);
    let mut secure = visitor.connect(sidecar.address(), "app.test").await.unwrap();
    assert_eq!(secure.client.get("/").await.text(), "one");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_come_is_cut_off() {
    let authority = Authority::new();
    let volume = Volume::of(&authority.issue(&["app.test"]), &authority);
    let server = volume.server(&Store::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let started = tokio::time::Instant::now();
    let error = server.accept(sidecar::net::Socket::Tcp(stream)).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(started.elapsed().as_secs(), Duration::from_secs(10).as_secs());
}

#[tokio::test]
async fn checks_go_within_tls_and_say_what_is_wrong() {
    let (authority, other, plain) = (Authority::new(), Authority::new(), Backend::named("one").await);
    let volume = Volume::of(&authority.issue(&["unused"]), &authority);
    for (pair, up) in [(authority.issue(&["127.0.0.1"]), 1.0), (other.issue(&["127.0.0.1"]), 0.0)] {
        let backend = Terminator::start(server_config(&pair, None), plain.address).await;
        let sidecar = towards(&volume.backend(), &backend).await;
        assert_eq!(sidecar.metric("sidecar_http_backend_up{"), Some(up));
    }
}
