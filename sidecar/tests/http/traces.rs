//! W3C Trace Context: which trace a backend and the access log are told of.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use serde_json::{Value, json};

use crate::support::{
    Backend, Sidecar, Site, refusing,
    tls::{Authority, Terminator, Volume, server_config},
    until,
};

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

/// A collector that takes what it gets.
async fn collector() -> Backend {
    Backend::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await
}

/// The spans that a collector has got, once there are so many.
async fn spans(collector: &Backend, count: usize) -> Vec<Span> {
    let all = || -> Vec<Span> {
        let requests = collector.requests();
        let decoded =
            requests.iter().map(|request| ExportTraceServiceRequest::decode(&request.body[..]).unwrap());
        let resources = decoded.flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    };
    until("the spans", || all().len() >= count).await;
    all()
}

/// An attribute as text, and `?` for none.
fn told(attributes: &[KeyValue], name: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == name);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        _ => "?".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_collector_is_told_of_each_sampled_request_by_the_conventions() {
    let (collector, backend) = (collector().await, Backend::named("a").await);
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), "X-Key: collector-secret\n").unwrap();
    let url = format!("http://{}/v1/traces", collector.address);
    let export = json!({"url": url, "headersFile": file.path(), "serviceName": "orders"});
    let sidecar = traced(json!({"tracing": {"export": export}, "accessLog": {}}), &backend).await;
    let mut client = sidecar.client().await;
    let parent =
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1\r\n";
    let head = "Host: data.example.com:9000\r\nUser-Agent: spark\r\nContent-Length: 3\r\n";
    client.send(format!("PUT /b/o?x=1&X-Amz-Signature=0af HTTP/1.1\r\n{head}{parent}\r\nabc")).await;
    client.receive().await.unwrap();
    client.send("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n\r\n").await;
    client.receive().await.unwrap();
    client.get("/new").await;
    let spans = spans(&collector, 2).await;
    let span = &spans[0];
    assert_eq!(
        (hex(&span.trace_id).as_str(), hex(&span.parent_span_id).as_str()),
        ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331")
    );
    assert_eq!((span.name.as_str(), span.kind, &span.status), ("PUT", SpanKind::Server.into(), &None));
    assert!(span.end_time_unix_nano > span.start_time_unix_nano && span.start_time_unix_nano > 0);
    for (name, expected) in [
        ("http.request.method", "PUT"),
        ("http.response.status_code", "200"),
        ("url.scheme", "http"),
        ("url.path", "/b/o"),
        ("url.query", "x=1&X-Amz-Signature=REDACTED"),
        ("server.address", "data.example.com"),
        ("server.port", "9000"),
        ("client.address", "127.0.0.1"),
        ("user_agent.original", "spark"),
        ("http.request.body.size", "3"),
        ("http.request.resend_count", "?"),
        ("error.type", "?"),
        ("sidecar.listener", "test"),
        ("sidecar.site", "primary"),
        ("sidecar.backend", &backend.address.to_string()),
    ] {
        assert_eq!(told(&span.attributes, name), expected, "{name}");
    }
    let requests = backend.requests();
    let parents: Vec<_> = requests.iter().map(|request| request.header("traceparent").unwrap()).collect();
    assert_eq!(parents[0], format!("00-{}-{}-01", hex(&span.trace_id), hex(&span.span_id)));
    assert_eq!(requests[0].header("tracestate"), Some("a=1"));
    assert_eq!(
        parents[1], "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
        "not sampled, not told"
    );
    assert_eq!(parents[2], format!("00-{}-{}-01", hex(&spans[1].trace_id), hex(&spans[1].span_id)));
    assert!(spans[1].parent_span_id.is_empty() && spans.len() == 2);
    let export = &collector.requests()[0];
    assert_eq!(export.start, "POST /v1/traces HTTP/1.1");
    assert_eq!(export.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(export.header("x-key"), Some("collector-secret"));
    let decoded = ExportTraceServiceRequest::decode(&export.body[..]).unwrap();
    let resource = decoded.resource_spans[0].resource.clone().unwrap();
    assert_eq!(told(&resource.attributes, "service.name"), "orders");
}

#[tokio::test]
async fn a_span_says_what_went_wrong() {
    let (collector, backend) =
        (collector().await, Backend::answering("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await);
    let export = json!({"url": format!("http://{}/v1/traces", collector.address)});
    let limits = json!([{"name": "all", "requests": 1, "per": "24h", "burst": 3}]);
    let sidecar = traced(json!({"tracing": {"export": export}, "rateLimits": limits}), &backend).await;
    let mut client = sidecar.client().await;
    client.post("/", "a").await;
    client.send("BREW /pot HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.receive().await.unwrap();
    let spans = spans(&collector, 2).await;
    let code = |span: &Span| span.status.as_ref().map(|status| status.code);
    assert_eq!(
        (code(&spans[0]), told(&spans[0].attributes, "error.type")),
        (Some(StatusCode::Error.into()), "500".to_owned())
    );
    assert_eq!(spans[1].name, "HTTP");
    assert_eq!(told(&spans[1].attributes, "http.request.method"), "_OTHER");
    assert_eq!(told(&spans[1].attributes, "http.request.method_original"), "BREW");
}

#[tokio::test]
async fn no_request_waits_for_a_collector() {
    let silent = Backend::start(|mut visit| async move {
        visit.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    for url in [format!("http://{}/", silent.address), format!("http://{}/", refusing().await)] {
        let backend = Backend::named("a").await;
        let sidecar = traced(json!({"tracing": {"export": {"url": url}}}), &backend).await;
        let mut client = sidecar.client().await;
        for _ in 0..6_000 {
            assert_eq!(client.get("/").await.status(), 200);
        }
        if url.contains(&silent.address.to_string()) {
            assert!(sidecar.metric("sidecar_trace_dropped_spans_total").unwrap() > 0.0);
        }
    }
}

#[tokio::test]
async fn a_collector_within_tls_is_verified_and_shown_the_certificate_that_it_asks_for() {
    let (collector, backend) = (collector().await, Backend::named("a").await);
    let authority = Authority::new();
    let pair = authority.issue(&["127.0.0.1"]);
    let server = Terminator::start(server_config(&pair, Some(&authority)), collector.address).await;
    let volume = Volume::of(&authority.issue(&["sidecar.test"]), &authority);
    let mut tls = volume.backend();
    tls.client_certificate = Some(volume.key_pair());
    let export = json!({"url": format!("https://{}/v1/traces", server.address), "tls": tls});
    let sidecar = traced(json!({"tracing": {"export": export}}), &backend).await;
    sidecar.get("/").await;
    assert_eq!(spans(&collector, 1).await.len(), 1);
    assert!(server.seen().iter().all(|seen| seen.with_certificate), "{:?}", server.seen());
    assert_eq!(sidecar.metric("sidecar_trace_dropped_spans_total"), Some(0.0));
}

/// A collector that answers so at first, and then takes what it gets.
async fn beginning_with(status: &'static str) -> Backend {
    let asked = Arc::new(AtomicUsize::new(0));
    Backend::start(move |mut visit| {
        let asked = Arc::clone(&asked);
        async move {
            visit.request().await;
            let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
            let status = if first { status } else { "200 OK" };
            visit.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_batch_is_sent_again_when_that_may_help_and_dropped_when_it_will_not() {
    let backend = Backend::named("a").await;
    let after = async |status: &'static str, series: &str| {
        let collector = beginning_with(status).await;
        let export = json!({"url": format!("http://{}/", collector.address)});
        let sidecar = traced(json!({"tracing": {"export": export}}), &backend).await;
        sidecar.get("/").await;
        let counted = format!("sidecar_trace_{series}_spans_total");
        until("the end of the batch", || sidecar.metric(&counted) == Some(1.0)).await;
        let bodies: Vec<_> = collector.requests().into_iter().map(|request| request.body).collect();
        assert!(bodies.iter().all(|body| *body == bodies[0]), "it is the same batch");
        bodies.len()
    };
    let (busy, refused) =
        tokio::join!(after("503 Service Unavailable", "sent"), after("400 Bad Request", "dropped"));
    assert_eq!((busy, refused), (2, 1));
}

#[tokio::test]
async fn what_waits_when_its_listener_closes_is_sent_at_once() {
    let (collector, backend) = (collector().await, Backend::named("a").await);
    let export = json!({"url": format!("http://{}/", collector.address)});
    let sidecar = traced(json!({"tracing": {"export": export}}), &backend).await;
    sidecar.get("/").await;
    drop(sidecar);
    assert_eq!(spans(&collector, 1).await.len(), 1);
}
