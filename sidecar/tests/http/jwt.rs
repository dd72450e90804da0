//! Tokens: who is let in, what a backend is told, and what becomes of keys that change, fail or never come.

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use crate::support::{
    Backend, Client, Sidecar, Site, in_time,
    issuer::{Key, claims, set},
    tls::{Authority, Terminator, Volume, server_config},
    until,
};

/// Clients that are known by tokens of a key set, and by nothing else.
fn authentication(jwks: Value, more: Value) -> Value {
    let mut jwt = json!({"issuer": "https://issuer.test", "audiences": ["app", "other"], "jwks": jwks});
    let mut settings = json!({});
    for (name, value) in more.as_object().unwrap() {
        let into = if name == "allow" { &mut settings } else { &mut jwt };
        into[name] = value.clone();
    }
    settings["jwt"] = jwt;
    json!({"authentication": settings, "accessLog": {}})
}

/// A listener for them.
async fn guarded(jwks: Value, more: Value, backend: &Backend) -> Sidecar {
    let site = Site::new("primary", &[backend.address]);
    let sidecar = Sidecar::with_config(authentication(jwks, more), vec![site]);
    sidecar.ready().await;
    sidecar
}

/// A key set in a file.
fn file(keys: &[Value]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    fs::write(file.path(), set(keys)).unwrap();
    file
}

async fn get(client: &mut Client, fields: &str) -> u16 {
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
    client.receive().await.unwrap().status()
}

async fn get_with(client: &mut Client, token: &str) -> u16 {
    get(client, &format!("Authorization: Bearer {token}\r\n")).await
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

#[tokio::test]
async fn a_token_lets_in_whoever_its_issuer_signed_it_for() {
    let (rsa, ec, ed) = (Key::rs256(), Key::es256(), Key::eddsa());
    let file = file(&[rsa.jwk("r"), ec.jwk("e"), ed.jwk("d")]);
    let backend = Backend::named("a").await;
    let sidecar = guarded(json!({"file": file.path()}), json!({"leeway": "30s"}), &backend).await;
    let mut client = sidecar.client().await;
    for (key, id) in [(&rsa, "r"), (&ec, "e"), (&ed, "d")] {
        let token = key.token(id, &claims(json!({})));
        assert_eq!(get_with(&mut client, &token).await, 200, "{id}");
        assert_eq!(get_with(&mut client, &token).await, 200, "{id} again");
        assert_eq!(get_with(&mut client, &key.token("?", &claims(json!({})))).await, 401, "{id} unknown");
    }
    let sign = |more: Value| ec.token("e", &claims(more));
    for (more, expected) in [
        (json!({"aud": ["x", "other"]}), 200),
        (json!({"exp": now() - 10}), 200),
        (json!({"exp": now() - 100}), 401),
        (json!({"exp": null}), 401),
        (json!({"exp": "tomorrow"}), 401),
        (json!({"nbf": now() + 10}), 200),
        (json!({"nbf": now() + 100}), 401),
        (json!({"iss": "https://issuer.test/"}), 401),
        (json!({"iss": null}), 401),
        (json!({"iss": ["https://issuer.test", 1]}), 401),
        (json!({"aud": "another"}), 401),
        (json!({"aud": null}), 401),
        (json!({"aud": ["app", 1]}), 401),
    ] {
        assert_eq!(get_with(&mut client, &sign(more.clone())).await, expected, "{more}");
    }
}

/// Asks on one connection, which is always served by the same thread, until this is the answer.
async fn turns(client: &mut Client, token: &str, status: u16) {
    in_time("another answer", async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while get_with(client, token).await != status {
            tick.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_token_that_was_good_a_moment_ago_is_not_when_it_has_expired() {
    let key = Key::es256();
    let file = file(&[key.jwk("e")]);
    let backend = Backend::named("a").await;
    let sidecar = guarded(json!({"file": file.path()}), json!({"leeway": "0s"}), &backend).await;
    let mut client = sidecar.client().await;
    let token = key.token("e", &claims(json!({"exp": now() + 2})));
    assert_eq!(get_with(&mut client, &token).await, 200);
    turns(&mut client, &token, 401).await;
}

#[tokio::test]
async fn new_rules_count_for_tokens_that_are_known_already() {
    let key = Key::es256();
    let file = file(&[key.jwk("e")]);
    let backend = Backend::named("a").await;
    let allowing = |name: &str| (json!({"file": file.path()}), json!({"allow": [{"names": [name]}]}));
    let (jwks, more) = allowing("spark");
    let mut sidecar = guarded(jwks, more, &backend).await;
    let mut client = sidecar.client().await;
    let token = key.token("e", &claims(json!({})));
    for (name, status) in [("spark", 200), ("ci", 403), ("sp*", 200)] {
        let (jwks, more) = allowing(name);
        sidecar.take(authentication(jwks, more));
        turns(&mut client, &token, status).await;
    }
}

#[tokio::test]
async fn no_forged_token_lets_anyone_in() {
    let (rsa, ec, ed, other) = (Key::rs256(), Key::es256(), Key::eddsa(), Key::es256());
    let file = file(&[rsa.jwk("r"), ec.jwk("e")]);
    let backend = Backend::named("a").await;
    let sidecar =
        guarded(json!({"file": file.path()}), json!({"algorithms": ["RS256", "ES256"]}), &backend).await;
    let mut client = sidecar.client().await;
    let claims = claims(json!({}));
    let good = ec.token("e", &claims);
    let (head, rest) = good.split_once('.').unwrap();
    let (body, signature) = rest.split_once('.').unwrap();
    let none = ec.signed(&json!({"alg": "none", "kid": "e"}), &claims);
    let tokens = [
        ("another's key", other.token("e", &claims)),
        ("another kind of key", ed.token("e", &claims)),
        ("the key of another name", ec.token("r", &claims)),
        ("no signature", format!("{head}.{body}.")),
        ("no algorithm", none.clone()),
        ("no algorithm and no signature", format!("{}.", none.rsplit_once('.').unwrap().0)),
        ("a secret that is public", ec.signed(&json!({"alg": "HS256", "kid": "e"}), &claims)),
        ("an algorithm that the key is not for", ec.signed(&json!({"alg": "RS256", "kid": "r"}), &claims)),
        ("something critical", ec.signed(&json!({"alg": "ES256", "kid": "e", "crit": ["b64"]}), &claims)),
        ("a key of its own", other.signed(&json!({"alg": "ES256", "jwk": other.jwk("e")}), &claims)),
        ("another body", format!("{head}.{}.{signature}", &head)),
        ("nothing", String::new()),
        ("too much", "a".repeat(20_000)),
    ];
    for (what, token) in &tokens {
        assert_eq!(get_with(&mut client, token).await, 401, "{what}");
    }
    for fields in [
        String::new(),
        format!("Authorization: {good}\r\n"),
        format!("Authorization: Basic {good}\r\n"),
        format!("X-Token: {good}\r\n"),
        format!("Authorization: Bearer {good}\r\nAuthorization: Bearer {good}\r\n"),
    ] {
        assert_eq!(get(&mut client, &fields).await, 401, "{fields}");
    }
    assert_eq!(backend.requests().len(), 0);
    assert_eq!(get_with(&mut client, &good).await, 200);
    let log = sidecar.output.lines(tokens.len() + 6).await.join("\n");
    assert!(!log.contains(head) && !log.contains(signature), "{log}");
}

#[tokio::test]
async fn a_client_without_a_good_token_is_told_what_is_wrong() {
    let key = Key::es256();
    let file = file(&[key.jwk("e")]);
    let backend = Backend::named("a").await;
    let allow = json!([{"claims": [{"claim": "scope", "values": ["write"]}]}]);
    let sidecar = guarded(json!({"file": file.path()}), json!({"allow": allow}), &backend).await;
    let mut client = sidecar.client().await;
    let plain = client.get("/").await;
    assert_eq!(plain.status(), 401);
    assert_eq!(plain.header("www-authenticate"), Some("Bearer realm=\"sidecar\""));
    let mut answer = async |token: String| {
        client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: bearer {token}\r\n\r\n")).await;
        client.receive().await.unwrap()
    };
    let old = answer(key.token("e", &claims(json!({"exp": now() - 999})))).await;
    let told = "Bearer realm=\"sidecar\", error=\"invalid_token\", error_description=\"it has expired\"";
    assert_eq!((old.status(), old.header("www-authenticate")), (401, Some(told)));
    let reader = answer(key.token("e", &claims(json!({"scope": "read"})))).await;
    let told = "Bearer realm=\"sidecar\", error=\"insufficient_scope\"";
    assert_eq!((reader.status(), reader.header("www-authenticate")), (403, Some(told)));
    let writer = answer(key.token("e", &claims(json!({"scope": "read write"})))).await;
    assert_eq!(writer.status(), 200);
}

#[tokio::test]
async fn rules_ask_for_names_and_claims() {
    let key = Key::eddsa();
    let file = file(&[key.jwk("d")]);
    let backend = Backend::named("a").await;
    let allow = json!([
        {"names": ["spark", "job-*"], "claims": [{"claim": "realm.roles", "values": ["data", "all-*"]}]},
        {"claims": [{"claim": "admin", "values": ["true"]}, {"claim": "level", "values": ["3"]}]},
    ]);
    let sidecar = guarded(json!({"file": file.path()}), json!({"allow": allow}), &backend).await;
    let mut client = sidecar.client().await;
    for (more, expected) in [
        (json!({"realm": {"roles": ["x", "data"]}}), 200),
        (json!({"realm": {"roles": "all-things"}, "sub": "job-7"}), 200),
        (json!({"realm": {"roles": ["data"]}, "sub": "ci"}), 403),
        (json!({"realm": {"roles": ["database"]}}), 403),
        (json!({}), 403),
        (json!({"sub": "ci", "admin": true, "level": 3}), 200),
        (json!({"sub": "ci", "admin": true}), 403),
        (json!({"sub": "ci", "admin": false, "level": 3}), 403),
    ] {
        let token = key.token("d", &claims(more.clone()));
        for time in ["first", "second"] {
            assert_eq!(get_with(&mut client, &token).await, expected, "{more}, the {time} time");
        }
    }
}

#[tokio::test]
async fn a_backend_is_told_of_claims_by_the_sidecar_alone() {
    let key = Key::es256();
    let file = file(&[key.jwk("e")]);
    let backend = Backend::named("a").await;
    let headers = json!([
        {"claim": "sub", "header": "X-User"}, {"claim": "groups", "header": "X-Groups"}, {"claim": "bad", "header": "X-Bad"},
    ]);
    let more = json!({"claimHeaders": headers, "forward": false});
    let sidecar = guarded(json!({"file": file.path()}), more, &backend).await;
    let mut client = sidecar.client().await;
    let token = key.token("e", &claims(json!({"groups": ["a", "b"], "bad": "x\r\nX-User: root"})));
    let forged = "x-user: root\r\nX-GROUPS: admin\r\nX-Bad: y\r\nX-Other: z\r\n";
    for _ in 0..2 {
        assert_eq!(get(&mut client, &format!("{forged}Authorization: Bearer {token}\r\n")).await, 200);
    }
    for request in backend.requests() {
        assert_eq!(request.headers, ["host: a", "x-other: z", "x-user: spark", "x-groups: a,b"]);
    }
}

#[tokio::test]
async fn keys_are_rotated_without_a_restart_and_old_ones_are_worth_nothing() {
    let (old, new) = (Key::es256(), Key::es256());
    let file = file(&[old.jwk("1")]);
    let backend = Backend::named("a").await;
    let sidecar = guarded(json!({"file": file.path()}), json!({}), &backend).await;
    let mut client = sidecar.client().await;
    let (first, second) = (old.token("1", &claims(json!({}))), new.token("2", &claims(json!({}))));
    assert_eq!((get_with(&mut client, &first).await, get_with(&mut client, &second).await), (200, 401));
    for bad in ["", "{\"keys\": []}"] {
        fs::write(file.path(), bad).unwrap();
        sidecar.keyring.sets.refresh();
        assert_eq!(get_with(&mut client, &first).await, 200, "{bad:?} does not replace a good one");
    }
    fs::write(file.path(), set(&[new.jwk("2")])).unwrap();
    sidecar.keyring.sets.refresh();
    assert_eq!((get_with(&mut client, &first).await, get_with(&mut client, &second).await), (401, 200));
    let shown = |name: &str, more: &str| {
        let source = file.path().display();
        sidecar.metric(&format!("sidecar_jwks_{name}{{source=\"{source}\"{more}}}"))
    };
    let fetches = |result: &str| shown("fetches_total", &format!(",result=\"{result}\""));
    assert_eq!((fetches("good"), fetches("failed"), shown("keys", "")), (Some(2.0), Some(2.0), Some(1.0)));
    let age = now() as f64 - shown("last_good_timestamp_seconds", "").unwrap();
    assert!((0.0..60.0).contains(&age), "{age}");
}

/// A server of key sets, and what it answers.
struct Keys {
    server: Backend,
    answer: Arc<Mutex<Option<Vec<u8>>>>,
    asked: Arc<AtomicUsize>,
}

impl Keys {
    /// Never answers until it is told what.
    async fn start() -> Self {
        let answer = Arc::<Mutex<Option<Vec<u8>>>>::default();
        let asked = Arc::<AtomicUsize>::default();
        let (shared, counted) = (Arc::clone(&answer), Arc::clone(&asked));
        let server = Backend::start(move |mut visit| {
            let (shared, counted) = (Arc::clone(&shared), Arc::clone(&counted));
            async move {
                visit.request().await;
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = shared.lock().unwrap().clone();
                match answer {
                    Some(answer) => visit.send(answer).await,
                    None => std::future::pending().await,
                }
            }
        })
        .await;
        Self { server, answer, asked }
    }

    fn give(&self, body: &str) {
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}");
        *self.answer.lock().unwrap() = Some(answer.into_bytes());
    }

    fn url(&self) -> String {
        format!("http://{}/keys", self.server.address)
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

async fn wait_for(sidecar: &Sidecar, token: &str, status: u16) {
    in_time("the keys", async {
        let mut tick = tokio::time::interval(std::time::Duration::from_millis(20));
        while get_with(&mut sidecar.client().await, token).await != status {
            tick.tick().await;
        }
    })
    .await;
}

#[tokio::test]
async fn keys_come_from_a_url_and_the_last_good_ones_outlive_their_server() {
    let (old, new) = (Key::es256(), Key::es256());
    let (keys, backend) = (Keys::start().await, Backend::named("a").await);
    keys.give(&set(&[old.jwk("1")]));
    let sidecar = guarded(json!({"url": keys.url()}), json!({}), &backend).await;
    let (first, second) = (old.token("1", &claims(json!({}))), new.token("2", &claims(json!({}))));
    wait_for(&sidecar, &first, 200).await;
    let before = keys.asked();
    keys.give(&"x".repeat(10 << 20));
    let mut client = sidecar.client().await;
    for _ in 0..50 {
        assert_eq!(get_with(&mut client, &second).await, 401);
    }
    assert!(keys.asked() <= before + 1, "unknown keys must not make a storm of fetches");
    drop(keys);
    assert_eq!(get_with(&mut client, &first).await, 200);
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_and_nobody_is_told_that_his_token_is_bad() {
    let key = Key::es256();
    let (keys, backend) = (Keys::start().await, Backend::named("a").await);
    let sidecar = guarded(json!({"url": format!("{}?key=secret", keys.url())}), json!({}), &backend).await;
    let token = key.token("1", &claims(json!({})));
    until("the first fetch", || keys.asked() > 0).await;
    let series = format!("sidecar_jwks_keys{{source=\"{}\"}}", keys.url());
    assert_eq!(sidecar.metric(&series), Some(0.0), "a query may hold a secret");
    let mut client = sidecar.client().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n")).await;
    let answer = client.receive().await.unwrap();
    assert_eq!((answer.status(), answer.header("retry-after")), (503, Some("1")));
    assert_eq!(get(&mut client, "").await, 401, "a request without a token needs no keys");
    for cause in ["NoKeys", "Unauthorized"] {
        let series = format!("sidecar_http_refused_total{{listener=\"test\",cause=\"{cause}\"}}");
        assert_eq!(sidecar.metric(&series), Some(1.0), "{cause}");
    }
    assert_eq!(backend.requests().len(), 0);
}

#[tokio::test]
async fn an_answer_that_is_too_long_or_no_set_is_asked_for_again() {
    let key = Key::es256();
    let (keys, backend) = (Keys::start().await, Backend::named("a").await);
    keys.give(&"x".repeat(10 << 20));
    let sidecar = guarded(json!({"url": keys.url()}), json!({}), &backend).await;
    let token = key.token("1", &claims(json!({})));
    until("the first fetch", || keys.asked() > 0).await;
    assert_eq!(get_with(&mut sidecar.client().await, &token).await, 503);
    keys.give(&set(&[key.jwk("1")]));
    wait_for(&sidecar, &token, 200).await;
    for result in ["failed", "good"] {
        let series = format!("sidecar_jwks_fetches_total{{source=\"{}\",result=\"{result}\"}}", keys.url());
        assert!(sidecar.metric(&series).is_some_and(|count| count >= 1.0), "{result}");
    }
}

#[tokio::test]
async fn keys_come_within_tls_from_whom_the_ca_vouches_for_and_from_nobody_else() {
    let key = Key::es256();
    let (keys, backend) = (Keys::start().await, Backend::named("a").await);
    keys.give(&set(&[key.jwk("1")]));
    let (known, unknown) = (Authority::new(), Authority::named("another CA"));
    let token = key.token("1", &claims(json!({})));
    for (authority, name, good) in
        [(&known, "127.0.0.1", true), (&unknown, "127.0.0.1", false), (&known, "issuer.test", false)]
    {
        let (pair, asked) = (authority.issue(&[name]), keys.asked());
        let server = Terminator::start(server_config(&pair, None), keys.server.address).await;
        let volume = Volume::of(&pair, &known);
        let jwks = json!({"url": format!("https://{}/keys", server.address), "tls": volume.backend()});
        let sidecar = guarded(jwks, json!({}), &backend).await;
        if good {
            wait_for(&sidecar, &token, 200).await;
            assert_eq!(server.seen().len(), 1);
        } else {
            // The first try has come to nothing once there is another one.
            until("a second try", || server.met() > 1).await;
            assert_eq!(get_with(&mut sidecar.client().await, &token).await, 503, "{name}");
            assert_eq!((server.seen().len(), keys.asked()), (0, asked), "{name}");
        }
    }
}
