//! What applications that know MinIO's sidekick find again, where it is asked for, and what others never see.

use crds::config::{DownAnswer, SidekickPaths};
use serde_json::json;

use crate::support::{Backend, Sidecar, Site, refusing, take_down};

const ALL: SidekickPaths = SidekickPaths { health: true, certificates: true, metrics: true };
const PATHS: [&str; 3] = ["/v1/health", "/v1/certificates", "/.prometheus/metrics"];

#[tokio::test]
async fn paths_of_its_own_are_answered_while_they_are_asked_for_and_are_objects_otherwise() {
    let backend = Backend::named("object").await;
    let mut sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    for path in PATHS {
        assert_eq!(client.get(path).await.text(), "object", "{path}");
    }
    sidecar.reconfigure(|config| config.sidekick = ALL);
    let statuses = [client.get(PATHS[0]).await.status(), client.get(PATHS[1]).await.status()];
    assert_eq!(statuses, [200, 404], "on the same connection");
    let metrics = client.get(PATHS[2]).await.text();
    let requests = format!("sidekick_requests_total{{endpoint=\"http://{}\"}} 3", backend.address);
    assert!(metrics.contains(&requests), "{metrics}");
    assert_eq!(client.post("/v1/health", "kept").await.text(), "object");
    assert_eq!(backend.requests().last().unwrap().text(), "kept", "an object of the bucket v1 is not lost");
    sidecar.reconfigure(|config| config.sidekick = SidekickPaths::default());
    assert_eq!(client.get("/v1/health?x").await.text(), "object");
}

#[tokio::test]
async fn with_all_backends_down_the_answer_is_backend_down_where_it_is_asked_for() {
    let mut sidecar = Sidecar::start(&[refusing().await]).await;
    assert_eq!(sidecar.get("/b/o").await.status(), 503);
    sidecar.reconfigure(|config| (config.down_answer, config.sidekick) = (DownAnswer::BackendDown, ALL));
    let answer = sidecar.get("/b/<o>&x").await;
    assert_eq!((answer.status(), answer.header("retry-after")), (502, Some("120")));
    assert_eq!(answer.header("content-type"), Some("application/xml"));
    let text = answer.text();
    assert!(text.contains("<Code>BackendDown</Code>"), "{text}");
    assert!(
        text.contains("connection refused</Message><Resource>/b/&lt;o&gt;&amp;x</Resource></Error>"),
        "{text}"
    );
    assert_eq!(sidecar.get("/v1/health").await.status(), 502);
}

#[tokio::test]
async fn a_backend_that_breaks_off_is_backend_down_too_and_a_bad_request_is_not() {
    let backend = Backend::named("up").await;
    let mut sidecar = Sidecar::start(&[backend.address]).await;
    sidecar.reconfigure(|config| config.down_answer = DownAnswer::BackendDown);
    take_down(backend).await;
    let mut client = sidecar.client().await;
    let answer = client.post("/b", "body").await;
    assert_eq!(answer.status(), 502);
    assert!(answer.text().contains("<Code>BackendDown</Code>"), "{}", answer.text());
    let mut client = sidecar.client().await;
    client.send("GET / HTTP/1.1\r\n\r\n").await;
    assert_eq!(client.receive().await.unwrap().status(), 400);
}

#[tokio::test]
async fn a_site_further_on_keeps_health_good() {
    let backend = Backend::named("second").await;
    let sites = vec![Site::new("first", &[refusing().await]), Site::new("second", &[backend.address])];
    let mut sidecar = Sidecar::with_sites(sites);
    sidecar.ready().await;
    sidecar.reconfigure(|config| config.sidekick = ALL);
    assert_eq!(sidecar.get("/v1/health").await.status(), 200);
}

#[tokio::test]
async fn backends_learn_of_the_client_where_it_is_asked_for() {
    let backend = Backend::named("up").await;
    let mut sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    client.get("/").await;
    sidecar.reconfigure(|config| config.forwarded_headers = true);
    client.send("GET / HTTP/1.1\r\nHost: s3:9000\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n").await;
    client.receive().await.unwrap();
    let [bare, told] = &backend.requests()[..] else { panic!("two requests") };
    assert!(bare.headers.iter().all(|line| !line.starts_with("x-")), "{:?}", bare.headers);
    let own = sidecar::net::own_address().unwrap_or([127, 0, 0, 1].into());
    for line in [
        format!("x-forwarded-for: 203.0.113.7, {own}"),
        format!("x-real-ip: {own}"),
        "x-forwarded-host: s3:9000".into(),
    ] {
        assert!(told.headers.contains(&line), "{line} is not in {:?}", told.headers);
    }
}

#[tokio::test]
async fn who_watches_a_listener_is_heard_while_clients_are_limited_and_must_be_known() {
    let backend = Backend::named("object").await;
    let keys = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(keys.path(), "app 0123456789abcdef\n").unwrap();
    let fields = json!({
        "sidekick": ALL,
        "rateLimits": [{"name": "few", "requests": 1, "per": "1h"}],
        "authentication": {"apiKeys": {"file": keys.path()}},
    });
    let sidecar = Sidecar::with_config(fields, vec![Site::new("primary", &[backend.address])]);
    sidecar.ready().await;
    let mut client = sidecar.client().await;
    let known = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Api-Key: 0123456789abcdef\r\n\r\n");
    for _ in 0..3 {
        let statuses = [client.get(PATHS[0]).await.status(), client.get(PATHS[1]).await.status()];
        assert_eq!(statuses, [200, 404], "neither limited nor asked who they are");
        assert_eq!(client.get(PATHS[2]).await.status(), 401, "what it tells is not for all");
        client.send(known(PATHS[2])).await;
        assert_eq!(client.receive().await.unwrap().status(), 200, "though not limited either");
    }
    client.send(known("/b/o")).await;
    assert_eq!(client.receive().await.unwrap().text(), "object", "none of them was counted");
    client.send(known("/b/o")).await;
    assert_eq!(client.receive().await.unwrap().status(), 429);
    assert_eq!(client.post(PATHS[0], "").await.status(), 429, "an object by that name is one as any other");
}
