//! Rate limits: who is refused, and what the answer says.

use serde_json::{Value, json};

use crate::support::{Backend, Client, Sidecar, Site};

/// A listener with these rate limits.
async fn limited(limits: Value, backend: &Backend) -> Sidecar {
    let site = Site::new("primary", &[backend.address]);
    let sidecar = Sidecar::with_config(json!({"rateLimits": limits, "accessLog": {}}), vec![site]);
    sidecar.ready().await;
    sidecar
}

async fn get_as(client: &mut Client, tenant: &str) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nx-tenant: {tenant}\r\n\r\n")).await;
    client.receive().await.unwrap().status()
}

#[tokio::test]
async fn a_request_too_many_is_answered_with_when_to_come_again() {
    let backend = Backend::named("a").await;
    let limits = json!([{"name": "all", "requests": 60, "per": "1h", "burst": 2}]);
    let sidecar = limited(limits, &backend).await;
    let mut client = sidecar.client().await;
    assert_eq!([client.get("/").await.status(), client.get("/").await.status()], [200, 200]);
    let refused = client.get("/secret").await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("ratelimit-policy"), Some("\"all\";q=60;w=3600"));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.header("ratelimit"), Some(format!("\"all\";r=0;t={wait}").as_str()));
    assert!(refused.text().contains("rate limit all"), "{}", refused.text());
    assert_eq!(backend.requests().len(), 2);
    assert_eq!(sidecar.metric("sidecar_http_rate_limited_total{listener=\"test\",limit=\"all\"}"), Some(1.0));
    let refused = "sidecar_http_refused_total{listener=\"test\",cause=\"RateLimited\"}";
    assert_eq!(sidecar.metric(refused), Some(1.0));
    let line = &sidecar.output.objects(3).await[2];
    assert_eq!(
        (&line["cause"], &line["status"], &line["tries"]),
        (&json!("RateLimited"), &json!(429), &json!(0))
    );
}

#[tokio::test]
async fn a_refused_body_is_not_read_as_the_next_request() {
    let backend = Backend::named("a").await;
    let limits = json!([{"name": "all", "requests": 1, "per": "24h"}]);
    let sidecar = limited(limits, &backend).await;
    sidecar.get("/").await;
    let mut client = sidecar.client().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\nGET /smuggled HTTP/1.1\r\n").await;
    assert_eq!(client.receive_head().await.status(), 429);
    drop(client);
    assert_eq!(backend.requests().len(), 1);
}

#[tokio::test]
async fn tenants_do_not_take_from_each_other() {
    let backend = Backend::named("a").await;
    let limits = json!([
        {"name": "tenant", "scope": "Header", "header": "X-Tenant", "requests": 1, "per": "24h", "burst": 2},
        {"name": "client", "scope": "Client", "requests": 1, "per": "24h", "burst": 4},
    ]);
    let sidecar = limited(limits, &backend).await;
    // Each connection may be another thread's: what is counted is counted for all.
    for (tenant, expected) in
        [("a", 200), ("a", 200), ("a", 429), ("b", 200), ("b", 200), ("b", 429), ("c", 429)]
    {
        assert_eq!(get_as(&mut sidecar.client().await, tenant).await, expected, "{tenant}");
    }
    assert_eq!(
        sidecar.metric("sidecar_http_rate_limited_total{listener=\"test\",limit=\"client\"}"),
        Some(1.0)
    );
}

#[tokio::test]
async fn who_goes_beyond_his_own_limit_takes_nothing_from_that_of_all() {
    let backend = Backend::named("a").await;
    let limits = json!([
        {"name": "all", "requests": 1, "per": "24h", "burst": 3},
        {"name": "tenant", "scope": "Header", "header": "X-Tenant", "requests": 1, "per": "24h"},
    ]);
    let sidecar = limited(limits, &backend).await;
    let mut client = sidecar.client().await;
    assert_eq!(get_as(&mut client, "greedy").await, 200);
    for _ in 0..9 {
        assert_eq!(get_as(&mut client, "greedy").await, 429);
    }
    assert_eq!(get_as(&mut client, "modest").await, 200);
}

#[tokio::test]
async fn an_edit_elsewhere_gives_nobody_a_new_allowance() {
    let backend = Backend::named("a").await;
    let limits = json!([{"name": "all", "requests": 1, "per": "24h"}]);
    let mut sidecar = limited(limits.clone(), &backend).await;
    assert_eq!(sidecar.get("/").await.status(), 200);
    sidecar.take(json!({"rateLimits": limits, "tracing": {}}));
    assert_eq!(sidecar.get("/").await.status(), 429);
    sidecar.take(json!({"rateLimits": [{"name": "all", "requests": 2, "per": "24h"}]}));
    crate::support::in_time("the new limit", async { while sidecar.get("/").await.status() == 429 {} }).await;
}
