//! What a real API server makes of policies: each mistake is refused with the field's path and a remedy, each default
//! is filled in, each field is explained.

mod l4;

use std::{
    io::Write,
    process::{Output, Stdio},
};

use e2e::apiserver::ApiServer;
use serde::Deserialize;

const HEAD: &str = "apiVersion: sidecar.io/v1alpha1\nkind: SidecarPolicy\nmetadata: {name: data}\n";

/// One listener of which `{...}` holes can be replaced.
fn listener(name: &str, port: &str, sites: &str, more: &str) -> String {
    format!("  - {{name: {name}, port: {port}, sites: [{sites}]{more}}}\n")
}

fn http(listeners: &str) -> String {
    format!("{HEAD}spec:\n  http:\n{listeners}")
}

const SITE: &str = "{name: primary, backends: [{service: {name: web, port: http}}]}";

async fn apply(namespace: &str, text: &str) -> anyhow::Result<Output> {
    let mut command = ApiServer::shared().await.kubectl();
    command.args(["apply", "-n", namespace, "-f", "-"]);
    let text = text.to_owned();
    Ok(tokio::task::spawn_blocking(move || -> std::io::Result<Output> {
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(text.as_bytes())?;
        }
        child.wait_with_output()
    })
    .await??)
}

fn address(text: &str) -> String {
    http(&listener("a", "9000", &format!("{{name: s, backends: [{{addresses: ['{text}']}}]}}"), ""))
}

#[tokio::test]
async fn every_mistake_is_refused_at_apply_with_its_path() -> anyhow::Result<()> {
    let namespace = ApiServer::shared().await.namespace("refused").await?;
    let two = |a: &str, b: &str| {
        http(&format!(
            "{}{}",
            listener("one", "9000", SITE, &format!(", address: {a}")),
            listener("two", "9000", SITE, &format!(", address: {b}"))
        ))
    };
    let limit = |more: &str| {
        let limit = format!(", rateLimits: [{{name: a, requests: 1, {more}}}]")
            .replace("requests: 1, requests", "requests");
        http(&listener("a", "9000", SITE, &limit))
    };
    let known = |fields: &str| http(&listener("a", "9000", SITE, &format!(", authentication: {{{fields}}}")));
    let cases = [
        ("unknown field", format!("{HEAD}spec: {{htp: []}}"), "spec.htp"),
        ("later part", format!("{HEAD}spec: {{kv: {{port: 7070}}}}"), "spec.kv"),
        ("port 0", http(&listener("a", "0", SITE, "")), "spec.http[0].port"),
        ("port 70000", http(&listener("a", "70000", SITE, "")), "spec.http[0].port"),
        ("admin port", http(&listener("a", "15470", SITE, "")), "choose another"),
        ("same address and port", two("127.0.0.1", "127.0.0.1"), "spec.http"),
        ("wildcard over loopback", two("0.0.0.0", "127.0.0.1"), "give each its own port"),
        ("no site", http(&listener("a", "9000", "", "")), "spec.http[0].sites"),
        ("empty site", http(&listener("a", "9000", "{name: s, backends: []}", "")), "sites[0].backends"),
        ("no source", http(&listener("a", "9000", "{name: s, backends: [{}]}", "")), "exactly one of"),
        (
            "two sources",
            http(&listener(
                "a",
                "9000",
                "{name: s, backends: [{addresses: ['10.0.0.1:80'], dns: {host: a.b, port: 80}}]}",
                "",
            )),
            "exactly one of",
        ),
        ("same site twice", http(&listener("a", "9000", &format!("{SITE}, {SITE}"), "")), "sites[1]"),
        ("range counts down", address("10.9.0.{4...1}:9000"), "smaller number first"),
        ("bad range", address("10.9.0.{1..4}:9000"), "backends[0].addresses[0]"),
        ("too many", address("10.9.{0...255}.{0...299}:9000"), "addresses[0]"),
        ("two ranges", address("10.9.{0...1}.{0...1}:9000"), "several addresses"),
        ("too long a range", address("10.9.0.1:{1...2000}"), "at most 1024"),
        ("number above 255", address("10.9.0.256:9000"), "addresses[0]"),
        ("address port", address("10.9.0.1:70000"), "addresses[0]"),
        ("bad IPv6", address("[fd00:::1]:9000"), "not an IPv6 address"),
        ("IPv4 in brackets", address("[10.0.0.1]:9000"), "not an IPv6 address"),
        ("host name as address", address("minio:9000"), "addresses[0]"),
        ("bad address", http(&listener("a", "9000", SITE, ", address: 127.0.0.300")), "spec.http[0].address"),
        (
            "bad duration",
            http(&listener("a", "9000", SITE, ", health: {interval: 5 seconds}")),
            "spec.http[0].health.interval",
        ),
        ("no total", http(&listener("a", "9000", SITE, ", timeouts: {total: 0s}")), "longer than zero"),
        ("no interval", http(&listener("a", "9000", SITE, ", health: {interval: 0s}")), "longer than zero"),
        ("bad start", http(&listener("a", "9000", SITE, ", health: {initial: Unknown}")), "health.initial"),
        ("bad log", http(&listener("a", "9000", SITE, ", accessLog: {format: json}")), "accessLog.format"),
        ("bad kind", http(&listener("a", "9000", SITE, ", accessLog: {of: Errors}")), "accessLog.of"),
        (
            "logged status",
            http(&listener("a", "9000", SITE, ", accessLog: {statuses: ['599-500']}")),
            "smaller code first",
        ),
        (
            "too many logged statuses",
            http(&listener(
                "a",
                "9000",
                SITE,
                &format!(", accessLog: {{statuses: [{}]}}", ["500"; 17].join(", ")),
            )),
            "accessLog.statuses",
        ),
        (
            "no share",
            http(&listener("a", "9000", SITE, ", tracing: {sampleOneIn: 0}")),
            "tracing.sampleOneIn",
        ),
        ("size in thousandths", http(&listener("a", "9000", SITE, ", maxBodySize: 10m")), "maxBodySize"),
        ("less than no body", http(&listener("a", "9000", SITE, ", maxBodySize: -1")), "maxBodySize"),
        ("header limit without header", limit("scope: Header"), "header is for scope Header"),
        ("header for nothing", limit("header: X-Tenant"), "header is for scope Header"),
        ("no header", limit("scope: Header, header: 'X Tenant'"), "rateLimits[0].header"),
        ("no time", limit("per: 0s"), "longer than zero, and at most 24h"),
        ("too long a time", limit("per: 25h"), "longer than zero, and at most 24h"),
        ("no requests", limit("requests: 0"), "rateLimits[0].requests"),
        (
            "nobody known",
            http(&listener("a", "9000", SITE, ", authentication: {allow: [{names: [a]}]}")),
            "clients are known by",
        ),
        (
            "certificates of nobody",
            http(&listener("a", "9000", SITE, ", authentication: {clientCertificates: true}")),
            "needs tls.clientCa",
        ),
        (
            "bad key header",
            http(&listener(
                "a",
                "9000",
                SITE,
                ", authentication: {apiKeys: {secret: {name: a}, header: 'X: A'}}",
            )),
            "apiKeys.header",
        ),
        ("no keys of tokens", known("jwt: {issuer: a, jwks: {}}"), "from secret, or from url"),
        ("no issuer", known("jwt: {jwks: {url: 'http://a'}}"), "jwt.issuer"),
        ("no URL", known("jwt: {issuer: a, jwks: {url: 'http://a:b@c'}}"), "jwks.url"),
        (
            "TLS for nothing",
            known("jwt: {issuer: a, jwks: {url: 'http://a', tls: {}}}"),
            "tls is for an https URL",
        ),
        (
            "too often",
            known("jwt: {issuer: a, jwks: {url: 'http://a', refresh: 1s}}"),
            "refresh is 10s to 24h",
        ),
        (
            "too much leeway",
            known("jwt: {issuer: a, leeway: 1h, jwks: {url: 'http://a'}}"),
            "leeway is at most",
        ),
        (
            "shared secrets",
            known("jwt: {issuer: a, algorithms: [HS256], jwks: {url: 'http://a'}}"),
            "algorithms",
        ),
        (
            "one header for two",
            known(
                "jwt: {issuer: a, jwks: {url: 'http://a'}}, apiKeys: {secret: {name: a}, header: authorization}",
            ),
            "a header of their own",
        ),
        (
            "claims without tokens",
            known("apiKeys: {secret: {name: a}}, allow: [{claims: [{claim: a, values: [b]}]}]"),
            "claims are those of tokens",
        ),
        ("a rule for nobody", known("apiKeys: {secret: {name: a}}, allow: [{}]"), "names, claims or both"),
        (
            "a collector without TLS",
            http(&listener("a", "9000", SITE, ", tracing: {export: {url: 'http://a', tls: {}}}")),
            "tls is for an https URL",
        ),
        ("bad path", http(&listener("a", "9000", SITE, ", health: {path: ready}")), "health.path"),
        (
            "hash without header",
            http(&listener("a", "9000", SITE, ", balance: HeaderHash")),
            "write both or neither",
        ),
        (
            "header without hash",
            http(&listener("a", "9000", SITE, ", hashHeader: X-A")),
            "write both or neither",
        ),
        (
            "bad header",
            http(&listener("a", "9000", SITE, ", balance: HeaderHash, hashHeader: 'X: A'")),
            "hashHeader",
        ),
        ("bad balance", http(&listener("a", "9000", SITE, ", balance: Least")), "spec.http[0].balance"),
        (
            "bad zones",
            http(&listener("a", "9000", SITE, ", trafficDistribution: Zone")),
            "trafficDistribution",
        ),
        (
            "base above max",
            http(&listener("a", "9000", SITE, ", outlierDetection: {baseEjectionTime: 10m}")),
            "at most maxEjectionTime",
        ),
        (
            "no ejection time",
            http(&listener("a", "9000", SITE, ", outlierDetection: {baseEjectionTime: 0s}")),
            "longer than zero",
        ),
        (
            "more than all",
            http(&listener("a", "9000", SITE, ", outlierDetection: {maxEjectedPercent: 101}")),
            "maxEjectedPercent",
        ),
        (
            "no requests",
            http(&listener("a", "9000", SITE, ", backendLimits: {maxRequests: 0}")),
            "backendLimits.maxRequests",
        ),
        (
            "heavy",
            http(&listener(
                "a",
                "9000",
                "{name: s, backends: [{addresses: ['10.0.0.1:80'], weight: 1001}]}",
                "",
            )),
            "backends[0].weight",
        ),
        (
            "status range counts down",
            http(&listener("a", "9000", SITE, ", health: {path: /, expectedStatuses: ['299-200']}")),
            "smaller code first",
        ),
        (
            "bad status",
            http(&listener("a", "9000", SITE, ", health: {path: /, expectedStatuses: [99]}")),
            "expectedStatuses[0]",
        ),
        (
            "bad status text",
            http(&listener("a", "9000", SITE, ", health: {path: /, expectedStatuses: [2xx]}")),
            "expectedStatuses[0]",
        ),
        (
            "no status",
            http(&listener("a", "9000", SITE, ", health: {expectedStatuses: []}")),
            "expectedStatuses",
        ),
        (
            "host without path",
            http(&listener("a", "9000", SITE, ", health: {host: example.com}")),
            "add path",
        ),
        (
            "bad host header",
            http(&listener("a", "9000", SITE, ", health: {path: /, host: a b}")),
            "health.host",
        ),
        ("bad name", http(&listener("A_b", "9000", SITE, "")), "spec.http[0].name"),
        (
            "bad host",
            http(&listener("a", "9000", "{name: s, backends: [{dns: {host: 'http://x', port: 80}}]}", "")),
            "dns.host",
        ),
        ("bad mode", format!("{HEAD}spec: {{injection: {{mode: native}}}}"), "spec.injection.mode"),
        (
            "no certificate",
            http(&listener("a", "9000", SITE, ", tls: {}")),
            "certificateSecret, or it is selfSigned",
        ),
        (
            "two certificates",
            http(&listener(
                "a",
                "9000",
                SITE,
                ", tls: {certificateSecret: {name: web}, selfSigned: {hosts: [localhost]}}",
            )),
            "certificateSecret, or it is selfSigned",
        ),
        (
            "no hosts",
            http(&listener("a", "9000", SITE, ", tls: {selfSigned: {hosts: []}}")),
            "spec.http[0].tls.selfSigned.hosts",
        ),
        (
            "bad Secret",
            http(&listener("a", "9000", SITE, ", tls: {certificateSecret: {name: 'a/b'}}")),
            "tls.certificateSecret.name",
        ),
        (
            "bad key",
            http(&listener(
                "a",
                "9000",
                "{name: s, tls: {caSecret: {name: a, key: ../b}}, backends: [{dns: {host: a.b, port: 80}}]}",
                "",
            )),
            "tls.caSecret.key",
        ),
        (
            "trusts everyone and one",
            http(&listener(
                "a",
                "9000",
                "{name: s, tls: {caSecret: {name: a}, insecureSkipVerify: true}, backends: [{dns: {host: a.b, port: 80}}]}",
                "",
            )),
            "trusts everyone",
        ),
        (
            "versions of TLS that do not meet",
            http(&listener(
                "a",
                "9000",
                "{name: s, tls: {minVersion: TLSv1.3, maxVersion: TLSv1.2}, backends: [{dns: {host: a.b, port: 80}}]}",
                "",
            )),
            "minVersion is not newer than maxVersion",
        ),
        (
            "socket and port",
            http(&listener("a", "9000", SITE, ", address: 'unix:/run/app/http.sock'")),
            "has a port, unless",
        ),
        ("no port", http(&listener("a", "9000", SITE, "")).replace(", port: 9000", ""), "has a port, unless"),
        (
            "socket in no volume",
            http(&listener("a", "9000", SITE, ", address: 'unix:/run/app/http.sock'"))
                .replace(", port: 9000", ""),
            "injection.volumeMounts",
        ),
        ("bad socket", address("unix:run/app.sock"), "addresses[0]"),
        (
            "volume of ours",
            format!(
                "{HEAD}spec: {{injection: {{volumeMounts: [{{name: sidecar-token, mountPath: /run/app}}]}}}}"
            ),
            "the sidecar's own: name a volume of the pod",
        ),
        (
            "path of ours",
            format!("{HEAD}spec: {{injection: {{volumeMounts: [{{name: a, mountPath: /var/run}}]}}}}"),
            "choose another path",
        ),
        (
            "bad quantity",
            format!("{HEAD}spec: {{injection: {{resources: {{limits: {{memory: 1mi}}}}}}}}"),
            "spec.injection.resources.limits.memory",
        ),
        (
            "request above limit",
            format!(
                "{HEAD}spec: {{injection: {{resources: {{requests: {{cpu: 2}}, limits: {{cpu: 500m}}}}}}}}"
            ),
            "requests.cpu is more than limits.cpu",
        ),
        (
            "long name",
            format!("{HEAD}spec: {{}}").replace("name: data", &format!("name: {}", "a".repeat(64))),
            "63",
        ),
    ];
    for (case, text, expected) in cases {
        refused(&namespace, case, &text, expected).await?;
    }
    Ok(())
}

/// Fails unless the API server refuses it with these words.
async fn refused(namespace: &str, case: &str, text: &str, expected: &str) -> anyhow::Result<()> {
    let output = apply(namespace, text).await?;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{case}: was accepted:\n{text}");
    assert!(errors.contains(expected), "{case}: {expected:?} is not in:\n{errors}");
    Ok(())
}

#[tokio::test]
async fn a_complete_policy_is_accepted_and_its_defaults_filled_in() -> anyhow::Result<()> {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("accepted").await?;
    let policy = format!(
        "{HEAD}spec:
  podSelector: {{matchLabels: {{team: data}}, matchExpressions: [{{key: tier, operator: In, values: [a]}}]}}
  priority: 10
  injection:
    mode: Auto
    resources: {{requests: {{cpu: 50m, memory: 32Mi}}, limits: {{cpu: 1, memory: 128Mi}}}}
    drainTimeout: 1m30s
    volumeMounts: [{{name: sockets, mountPath: /run/app}}]
  http:
  - name: minio
    port: 9000
    sites:
    - {{name: primary, backends: [{{service: {{name: minio, namespace: storage, port: 9000}}}}]}}
    - {{name: recovery, backends: [{{addresses: ['10.9.0.{{1...4}}:9000', '[fd00::1]:{{9000...9003}}'], weight: 0}}, {{dns: {{host: s3.example.com, port: 9000}}}}]}}
    health:
      {{path: /a, lastSitePath: /b, host: 's3.example.com:9000', port: 9001, interval: 5s, jitterPercent: 0,
       expectedStatuses: [200, '204', '300-399'], initial: Down, optimistic: true, panic: false}}
    balance: HeaderHash
    hashHeader: X-Tenant
    slowStart: 30s
    trafficDistribution: PreferSameZone
    outlierDetection: {{consecutiveErrors: 0, maxEjectionTime: 1h30m}}
    backendLimits: {{maxRequests: 100, maxConnections: 100, maxPending: 10}}
    timeouts: {{connect: 500ms, total: 24h, keepAlive: 0s}}
  - {{name: web, address: 0.0.0.0, port: 8081, sites: [{SITE}], accessLog: {{of: All, statuses: [404, '500-599'], errorsOnly: true}},
      tracing: {{sampleOneIn: 100, export: {{url: 'https://collector:4318/v1/traces', tls: {{}}, headersSecret: {{name: otlp}}}}}},
      maxBodySize: 10Mi, rateLimits: [{{name: all, requests: 100}}, {{name: tenant, scope: Header, header: X-Tenant, requests: 10, per: 1m30s, burst: 5}}],
      authentication: {{apiKeys: {{secret: {{name: clients}}}}, jwt: {{issuer: 'https://login', audiences: [a], jwks: {{url: 'https://login/keys', tls: {{caSecret: {{name: login}}}}}}, claimHeaders: [{{claim: sub, header: X-User}}]}},
      allow: [{{names: [spark, 'ci-*']}}, {{claims: [{{claim: scope, values: [write]}}]}}]}}}}
  - name: secure
    port: 8443
    tls: {{certificateSecret: {{name: web-tls}}, clientCa: {{secret: {{name: clients}}}}}}
    sites:
    - name: main
      tls: {{caSecret: {{name: dr-ca}}, serverName: s3.example.com, clientCertificateSecret: {{name: spark}}, minVersion: TLSv1.2, maxVersion: TLSv1.3}}
      backends: [{{addresses: ['unix:/run/app/{{1...2}}.sock']}}]
  - {{name: socket, address: 'unix:/run/app/http.sock', sites: [{SITE}]}}
"
    );
    let output = apply(&namespace, &policy).await?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let policies: kube::Api<crds::policy::SidecarPolicy> =
        kube::Api::namespaced(server.client().await?, &namespace);
    let stored = policies.get("data").await?;
    assert_eq!(stored.spec.http[0].address.to_string(), "127.0.0.1");
    assert_eq!(stored.spec.http[0].health.unhealthy_threshold, 3);
    assert_eq!(stored.spec.http[0].health.timeout.to_string(), "2s");
    assert_eq!(stored.spec.http[0].timeouts.first_byte.to_string(), "5s");
    let statuses = stored.spec.http[0].health.expected_statuses.iter().map(ToString::to_string);
    assert_eq!(statuses.collect::<Vec<_>>(), ["200", "204", "300-399"]);
    let sources = stored.spec.http[0].sites.iter().flat_map(|site| &site.backends);
    assert_eq!(sources.map(|source| source.weight).collect::<Vec<_>>(), [1, 0, 1]);
    assert_eq!(stored.spec.http[1].outlier_detection.consecutive_errors, 5);
    assert_eq!(stored.spec.http[1].health.expected_statuses, ["200".parse().unwrap()]);
    assert!(stored.spec.http[1].health.panic);
    let log = stored.spec.http[1].access_log.as_ref().unwrap();
    assert_eq!((log.format, log.sample_one_in.get()), (crds::config::AccessLogFormat::Json, 1));
    assert_eq!(stored.spec.injection.drain_timeout.to_string(), "1m30s");
    let site = stored.spec.http[2].sites[0].tls.as_ref().unwrap();
    assert_eq!(site.ca_secret.as_ref().unwrap().key, "ca.crt");
    assert!(apply(&namespace, &policy).await?.status.success());
    assert_eq!(policies.get("data").await?.metadata.generation, Some(1), "a second apply is no edit");
    Ok(())
}

#[tokio::test]
async fn the_policies_of_all_examples_are_accepted() -> anyhow::Result<()> {
    let namespace = ApiServer::shared().await.namespace("examples").await?;
    let mut accepted = 0;
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        for document in serde_yaml::Deserializer::from_str(&text) {
            let mut object = serde_json::Value::deserialize(document)?;
            if object["kind"] != "SidecarPolicy" {
                continue;
            }
            object["metadata"]["namespace"] = namespace.as_str().into();
            let output = apply(&namespace, &object.to_string()).await?;
            let error = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success() && error.is_empty(), "{}: {error}", path.display());
            accepted += 1;
        }
    }
    anyhow::ensure!(accepted >= 6, "{accepted} policies");
    Ok(())
}

#[tokio::test]
async fn an_unknown_field_is_a_warning_for_clients_that_do_not_validate() -> anyhow::Result<()> {
    let server = ApiServer::shared().await;
    let namespace = server.namespace("warned").await?;
    let file = tempfile_with(&format!("{HEAD}spec: {{kv: {{}}}}"))?;
    let mut command = server.kubectl();
    command.args(["apply", "--validate=warn", "-n", &namespace, "-f"]).arg(file.path());
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("unknown field \"spec.kv\""));
    Ok(())
}

#[tokio::test]
async fn kubectl_explain_prints_the_documentation_of_every_field() -> anyhow::Result<()> {
    let server = ApiServer::shared().await;
    let mut command = server.kubectl();
    command.args(["explain", "sidecarpolicy.spec", "--recursive=false"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let text = String::from_utf8_lossy(&output.stdout);
    for words in ["podSelector", "highest priority wins", "HTTP listeners that the sidecar opens"] {
        assert!(text.contains(words), "{words:?} is not in:\n{text}");
    }
    undocumented(
        &crds::generate::policy_crd()?["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        "policy",
    );
    Ok(())
}

/// Fails on the first property of ours without a description.
fn undocumented(schema: &serde_json::Value, path: &str) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        assert!(property["description"].is_string(), "{path} has no description");
        undocumented(property, &path);
        undocumented(&property["items"], &format!("{path}[]"));
    }
}

fn tempfile_with(text: &str) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    file.write_all(text.as_bytes())?;
    Ok(file)
}
