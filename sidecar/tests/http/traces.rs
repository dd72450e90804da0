//! W3C Trace Context: which trace a backend and the access log are told of.

use serde_json::{Value, json};

use crate::support::{Backend, Sidecar, Site};

async fn traced(settings: Value, backend: &Backend) -> Sidecar {
    let site = Site::new("primary", &[backend.address]);
    let sidecar = Sidecar::with_config(settings, vec![site]);
    sidecar.ready().await;
    sidecar
}

#[tokio::test]
async fn a_request_without_a_trace_gets_one_that_the_log_names() {
    let backend = Backend::named("a").await;
    let sidecar = traced(json!({"tracing": {}, "accessLog": {}}), &backend).await;
    let mut client = sidecar.client().await;
    client.get("/one").await;
    client.get("/two").await;
    let lines = sidecar.output.objects(2).await;
    let requests = backend.requests();
    let mut ids = Vec::new();
    for (request, line) in requests.iter().zip(&lines) {
        let parent = request.header("traceparent").unwrap();
        let id = line["trace"].as_str().unwrap();
        assert!(parent.starts_with(&format!("00-{id}-")) && parent.ends_with("-01"), "{parent}");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn a_trace_of_the_client_goes_on_as_it_came() {
    let backend = Backend::named("a").await;
    let sidecar = traced(json!({"tracing": {}, "accessLog": {}}), &backend).await;
    let mut client = sidecar.client().await;
    let fields =
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\ntracestate: a=1,b=2\r\n";
    client.send(format!("GET / HTTP/1.1\r\nHost: app\r\n{fields}\r\n")).await;
    client.receive().await.unwrap();
    let headers = backend.requests()[0].headers.clone();
    assert_eq!(headers[1..].join("\r\n") + "\r\n", fields);
    assert_eq!(sidecar.output.objects(1).await[0]["trace"], "0af7651916cd43dd8448eb211c80319c");
}

#[tokio::test]
async fn without_tracing_nothing_is_added() {
    let backend = Backend::named("a").await;
    let sidecar = traced(json!({}), &backend).await;
    sidecar.get("/").await;
    assert_eq!(backend.requests()[0].headers, ["host: app"]);
}
