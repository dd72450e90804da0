//! What a listener of a policy asks of requests -> the same in a SidecarConfig: Secrets become the files that the kubelet mounts.
//! Pure; no client required.

use crds::{
    config::{ApiKeys, Authentication, Jwks, Jwt, TraceExport, Tracing},
    names::secret_file,
    policy::{ApiKeysSpec, AuthenticationSpec, JwtSpec, TraceExportSpec, TracingSpec},
};

use super::tls;

/// Keys are read from the file that the webhook mounts their Secret at.
pub(super) fn authentication(spec: &AuthenticationSpec) -> Authentication {
    let keys = |keys: &ApiKeysSpec| ApiKeys {
        file: secret_file(&keys.secret.name, &keys.secret.key),
        header: keys.header.clone(),
    };
    Authentication {
        api_keys: spec.api_keys.as_ref().map(keys),
        jwt: spec.jwt.as_ref().map(jwt),
        client_certificates: spec.client_certificates,
        allow: spec.allow.clone(),
    }
}

pub(super) fn tracing(spec: &TracingSpec) -> Tracing {
    let export = |export: &TraceExportSpec| TraceExport {
        url: export.url.clone(),
        tls: export.tls.as_ref().map(tls::site),
        headers_file: export.headers_secret.as_ref().map(|secret| secret_file(&secret.name, &secret.key)),
        service_name: export.service_name.clone(),
    };
    Tracing { sample_one_in: spec.sample_one_in, export: spec.export.as_ref().map(export) }
}

fn jwt(spec: &JwtSpec) -> Jwt {
    Jwt {
        issuer: spec.issuer.clone(),
        audiences: spec.audiences.clone(),
        jwks: Jwks {
            file: spec.jwks.secret.as_ref().map(|secret| secret_file(&secret.name, &secret.key)),
            url: spec.jwks.url.clone(),
            tls: spec.jwks.tls.as_ref().map(tls::site),
            refresh: spec.jwks.refresh,
        },
        algorithms: spec.algorithms.clone(),
        leeway: spec.leeway,
        header: spec.header.clone(),
        forward: spec.forward,
        claim_headers: spec.claim_headers.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_secret_becomes_the_file_that_the_webhook_mounts() {
        let spec = json!({
            "apiKeys": {"secret": {"name": "clients"}},
            "jwt": {
                "issuer": "https://login.example.com", "audiences": ["app"], "forward": false, "algorithms": ["ES256"],
                "jwks": {"secret": {"name": "login"}}, "claimHeaders": [{"claim": "sub", "header": "X-User"}],
            },
            "allow": [{"claims": [{"claim": "scope", "values": ["write"]}]}],
        });
        let known = authentication(&serde_json::from_value(spec).unwrap());
        let expected = json!({
            "apiKeys": {"file": secret_file("clients", "keys"), "header": "X-Api-Key"},
            "jwt": {
                "issuer": "https://login.example.com", "audiences": ["app"], "forward": false, "algorithms": ["ES256"],
                "jwks": {"file": secret_file("login", "jwks.json"), "refresh": "5m"}, "leeway": "30s",
                "header": "Authorization", "claimHeaders": [{"claim": "sub", "header": "X-User"}],
            },
            "clientCertificates": false,
            "allow": [{"claims": [{"claim": "scope", "values": ["write"]}]}],
        });
        assert_eq!(serde_json::to_value(known).unwrap(), expected);
        let spec = json!({"export": {
            "url": "https://collector:4318/v1/traces", "tls": {"caSecret": {"name": "ca"}}, "headersSecret": {"name": "keys"},
        }});
        let export = tracing(&serde_json::from_value(spec).unwrap()).export.unwrap();
        assert_eq!(export.headers_file, Some(secret_file("keys", "headers")));
        assert_eq!(export.tls.unwrap().ca_file, Some(secret_file("ca", "ca.crt")));
        assert_eq!(export.service_name, "sidecar");
    }
}
