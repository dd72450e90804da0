//! The access log: one line for each request, with no secret in it.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::{Backend, Sidecar, Site, in_time, refusing, until};

/// A listener with these settings of its access log.
async fn logging(settings: Value, backend: &Backend) -> Sidecar {
    let site = Site::new("primary", &[backend.address]);
    let sidecar = Sidecar::with_config(json!({ "accessLog": settings }), vec![site]);
    sidecar.ready().await;
    sidecar
}

#[tokio::test]
async fn each_request_is_one_line_with_all_there_is_to_say() {
    let backend = Backend::answering("HTTP/1.1 206 Part\r\nContent-Length: 5\r\n\r\nhello").await;
    let sidecar = logging(json!({}), &backend).await;
    let mut client = sidecar.client().await;
    client
        .send(
            "PUT /b//o%2f?partNumber=1&X-Amz-Signature=0af HTTP/1.1\r\nHost: data:9000\r\nUser-Agent: spark \"3\"\r\n\
             Content-Length: 3\r\n\r\nabc",
        )
        .await;
    client.receive().await.unwrap();
    client.get("/next").await;
    let lines = sidecar.output.objects(2).await;
    let line = &lines[0];
    let told = |name: &str| line[name].clone();
    assert_eq!(told("listener"), "test");
    assert_eq!(told("method"), "PUT");
    assert_eq!(told("host"), "data:9000");
    assert_eq!(told("path"), "/b//o%2f?partNumber=1&X-Amz-Signature=REDACTED");
    assert_eq!(told("status"), 206);
    assert_eq!((told("receivedBytes"), told("sentBytes")), (json!(3), json!(5)));
    assert_eq!((told("site"), told("backend")), (json!("primary"), json!(backend.address.to_string())));
    assert_eq!(told("tries"), 1);
    assert_eq!(told("userAgent"), "spark \"3\"");
    assert_eq!((told("trace"), told("cause")), (Value::Null, Value::Null));
    assert!(told("client").as_str().unwrap().starts_with("127.0.0.1:"));
    assert!(told("durationSeconds").as_f64().unwrap() > 0.0);
    let time = told("time");
    let time: jiff::Timestamp = time.as_str().unwrap().parse().unwrap();
    let age = jiff::Timestamp::now().duration_since(time);
    assert!(age.as_secs().abs() < 60, "{age:?}");
    assert_eq!(lines[1]["path"], "/next");
}

#[tokio::test]
async fn a_request_that_comes_to_nothing_says_why() {
    let backend = Backend::start(|mut visit| async move {
        while let Some(request) = visit.request().await {
            match request.start.split(' ').nth(1) {
                Some("/short") => {
                    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").await;
                    return;
                }
                Some("/closed") => return,
                _ => {}
            }
        }
    })
    .await;
    let sidecar = logging(json!({"sampleOneIn": 1_000_000}), &backend).await;
    sidecar.client().await.send("GET / HTTP/1.1\r\n\r\n").await;
    let bad = &sidecar.output.objects(1).await[0];
    assert_eq!(
        (&bad["cause"], &bad["status"], &bad["path"]),
        (&json!("BadRequest"), &json!(400), &Value::Null)
    );

    let mut client = sidecar.client().await;
    client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(client.receive().await.is_err());
    let broken = &sidecar.output.objects(2).await[1];
    assert_eq!(
        (&broken["cause"], &broken["status"], &broken["sentBytes"]),
        (&json!("BackendBroke"), &json!(200), &json!(5))
    );

    client = sidecar.client().await;
    client.post("/closed", "a").await;
    let failed = &sidecar.output.objects(3).await[2];
    assert_eq!((&failed["cause"], &failed["status"]), (&json!("BackendsFailed"), &json!(502)));

    client = sidecar.client().await;
    client.send("GET /never HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request", || backend.requests().iter().any(|request| request.start.contains("/never"))).await;
    drop(client);
    let gone = &sidecar.output.objects(4).await[3];
    assert_eq!((&gone["cause"], &gone["status"]), (&json!("ClientGone"), &Value::Null));

    sidecar.sites[0].set(&[refusing().await]);
    until("the backend is gone", || sidecar.metric("sidecar_http_backend_up").is_none_or(|up| up < 1.0))
        .await;
    assert_eq!(sidecar.get("/").await.status(), 503);
    assert_eq!(sidecar.output.objects(5).await[4]["status"], 503);
    for (cause, count) in [
        ("BadRequest", 1.0),
        ("BackendsFailed", 1.0),
        ("NoBackend", 1.0),
        ("BackendsFull", 0.0),
        ("TimedOut", 0.0),
        ("RateLimited", 0.0),
        ("Unauthorized", 0.0),
        ("Forbidden", 0.0),
        ("NoKeys", 0.0),
    ] {
        let series = format!("sidecar_http_refused_total{{listener=\"test\",cause=\"{cause}\"}}");
        assert_eq!(sidecar.metric(&series), Some(count), "{cause}");
    }
}

/// A backend that answers with the status that stands in the path, and breaks off what is asked for as `/short`.
async fn obedient() -> Backend {
    Backend::start(|mut visit| async move {
        while let Some(request) = visit.request().await {
            match request.start.split([' ', '/', '?']).nth(2) {
                Some("short") => {
                    visit.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort").await;
                    return;
                }
                status => {
                    let status = status.unwrap_or_default();
                    visit.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n")).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_log_of_some_statuses_or_of_errors_has_no_others() {
    let backend = obedient().await;
    for (settings, expected) in [
        (json!({"statuses": [404, "500-599"]}), vec!["/404", "/500"]),
        (json!({"errorsOnly": true}), vec!["/404", "/403", "/500", "/short"]),
        (json!({"errorsOnly": true, "statuses": ["200-299", 403]}), vec!["/403", "/short"]),
        (json!({"statuses": [200], "sampleOneIn": 1}), vec!["/200", "/200", "/short"]),
    ] {
        let sidecar = logging(settings.clone(), &backend).await;
        let mut client = sidecar.client().await;
        for path in ["/200", "/404", "/403", "/500", "/200"] {
            client.get(path).await;
        }
        client.send("GET /short HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(client.receive().await.is_err());
        let (listener, output, _rest) = sidecar.into_logged();
        in_time("the drain", listener.drain(Duration::from_secs(5))).await;
        let lines = output.objects(expected.len()).await;
        let paths: Vec<_> = lines.iter().map(|line| line["path"].as_str().unwrap()).collect();
        assert_eq!(paths, expected, "{settings}");
    }
}

#[tokio::test]
async fn checks_are_lines_where_they_are_asked_for() {
    let backend = obedient().await;
    for (of, kinds) in
        [("Requests", &["Request"][..]), ("Checks", &["Check"]), ("All", &["Check", "Request"])]
    {
        let fields = json!({
            "accessLog": {"of": of},
            "health": {"path": "/204?token=secret", "host": "s3", "expectedStatuses": ["200-299"], "interval": "1h"},
        });
        let sidecar = Sidecar::with_config(fields, vec![Site::new("primary", &[backend.address])]);
        sidecar.ready().await;
        assert_eq!(sidecar.get("/200").await.status(), 200);
        let (listener, output, _rest) = sidecar.into_logged();
        in_time("the drain", listener.drain(Duration::from_secs(5))).await;
        let lines = output.objects(kinds.len()).await;
        assert_eq!(
            lines.iter().map(|line| line["kind"].as_str().unwrap()).collect::<Vec<_>>(),
            kinds,
            "{of}"
        );
        let Some(check) = lines.iter().find(|line| line["kind"] == "Check") else { continue };
        let told = |name: &str| check[name].clone();
        assert_eq!((told("client"), told("cause"), told("tries")), (Value::Null, Value::Null, json!(1)));
        assert_eq!((told("method"), told("host"), told("status")), (json!("GET"), json!("s3"), json!(204)));
        assert_eq!(told("path"), "/204?token=REDACTED");
        assert_eq!((told("site"), told("backend")), (json!("primary"), json!(backend.address.to_string())));
        assert!(told("userAgent").as_str().unwrap().starts_with("sidecar/"));
    }
}

#[tokio::test]
async fn a_bad_check_says_why_and_a_good_one_is_no_error() {
    let (backend, nowhere) = (obedient().await, refusing().await);
    let fields = json!({
        "accessLog": {"of": "Checks", "errorsOnly": true},
        "health": {"path": "/418", "expectedStatuses": [418], "interval": "1h"},
    });
    let mut sidecar = Sidecar::with_config(fields, vec![Site::new("primary", &[backend.address, nowhere])]);
    sidecar.ready().await;
    for refused in sidecar.output.objects(1).await {
        assert_eq!((&refused["cause"], &refused["status"]), (&json!("Refused"), &Value::Null));
        assert_eq!(refused["backend"], nowhere.to_string());
    }
    sidecar.take(json!({"accessLog": {"of": "Checks"}, "health": {"path": "/500", "interval": "1h"}}));
    until("the other check", || sidecar.output.text().contains("UnexpectedStatus")).await;
    let lines = sidecar.output.objects(2).await;
    let other = lines.iter().find(|line| line["cause"] == "UnexpectedStatus").unwrap();
    assert_eq!((&other["status"], &other["path"]), (&json!(500), &json!("/500")));
}

#[tokio::test]
async fn of_good_requests_the_wanted_share_is_written() {
    let backend = Backend::named("a").await;
    let sidecar = logging(json!({"sampleOneIn": 4, "format": "Text"}), &backend).await;
    let mut client = sidecar.client().await;
    for _ in 0..400 {
        client.get("/").await;
    }
    let (listener, output, _rest) = sidecar.into_logged();
    in_time("the drain", listener.drain(Duration::from_secs(5))).await;
    until("the last lines", || {
        let lines = output.text().lines().count();
        (50..150).contains(&lines)
    })
    .await;
    assert!(
        output
            .text()
            .lines()
            .all(|line| line.starts_with("time=") && line.ends_with(" cause=- kind=Request"))
    );
}

#[tokio::test]
async fn lines_of_requests_that_a_drain_cuts_off_are_written_too() {
    let backend = Backend::start(|mut visit| async move {
        visit.request().await;
        std::future::pending::<()>().await;
    })
    .await;
    let sidecar = logging(json!({}), &backend).await;
    let mut client = sidecar.client().await;
    client.send("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n").await;
    until("the request", || backend.connections() == 1).await;
    let (listener, output, _rest) = sidecar.into_logged();
    in_time("the drain", listener.drain(Duration::from_millis(10))).await;
    let line = &output.objects(1).await[0];
    assert_eq!((&line["path"], &line["cause"]), (&json!("/slow"), &json!("CutOff")));
}

#[tokio::test]
async fn a_log_is_turned_on_and_off_between_two_requests_of_a_connection() {
    let backend = Backend::named("a").await;
    let mut sidecar = Sidecar::start(&[backend.address]).await;
    let mut client = sidecar.client().await;
    assert_eq!(client.get("/before").await.status(), 200);
    sidecar.take(json!({"accessLog": {}}));
    in_time("the log", async {
        while !sidecar.output.text().contains("/on") {
            assert_eq!(client.get("/on").await.status(), 200);
        }
    })
    .await;
    sidecar.take(json!({}));
    in_time("the end of the log", async {
        loop {
            let before = sidecar.output.text().matches("/off").count();
            for _ in 0..2_000 {
                assert_eq!(client.get("/off").await.status(), 200);
            }
            if sidecar.output.text().matches("/off").count() == before {
                break;
            }
        }
    })
    .await;
    assert!(!sidecar.output.text().contains("/before"));
}

/// A request with a secret in some of the places where secrets stand.
fn request() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "X-Amz-Signature",
        "x-amz-credential",
        "X-AMZ-SECURITY-TOKEN",
        "X%2dAmz-Signature",
        "Signature",
        "AWSAccessKeyId",
        "access_token",
        "ticket",
    ]);
    let field = prop::sample::select(vec![
        "Authorization: AWS4-HMAC-SHA256 Credential=",
        "authorization: Bearer ",
        "Cookie: session=",
        "X-Amz-Security-Token: ",
        "Proxy-Authorization: Basic ",
        "X-Api-Key: ",
    ]);
    let plain = "[a-z0-9%;=/.-]{0,12}";
    let parameters = prop::collection::vec((name, plain, plain), 0..4);
    (plain, parameters, prop::collection::vec(field, 0..4), "[ -~]{0,20}").prop_map(
        |(path, parameters, fields, agent)| {
            let query: Vec<String> = parameters
                .iter()
                .map(|(name, before, after)| format!("p={before}&{name}={before}SECRET{after}"))
                .collect();
            let fields: String = fields.iter().map(|field| format!("{field}SECRET\r\n")).collect();
            format!(
                "GET /{path}?{} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n{fields}\r\n",
                query.join("&")
            )
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]
    #[test]
    fn no_secret_of_a_request_is_ever_written(requests in prop::collection::vec(request(), 100)) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let backend = Backend::named("a").await;
            for format in ["Json", "Text"] {
                let sidecar = logging(json!({"format": format, "redact": ["Ticket"]}), &backend).await;
                let mut client = sidecar.client().await;
                for request in &requests {
                    client.send(request).await;
                    assert_eq!(client.receive().await.unwrap().status(), 200, "{request}");
                }
                let text = sidecar.output.lines(requests.len()).await.join("\n");
                assert!(!text.contains("SECRET"), "{text}");
            }
        });
    }
}
