//! Which Secrets a policy names: what the webhook mounts into the sidecar.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    AuthenticationSpec, ListenerTlsSpec, SecretKeyReference, SecretReference, ServerCheckSpec,
    SidecarPolicySpec, SiteTlsSpec, TraceExportSpec,
    tls::{TLS_CERTIFICATE, TLS_KEY},
};

/// Keys by the Secret that they are of.
pub type SecretKeys<'a> = BTreeMap<&'a str, BTreeSet<&'a str>>;

impl SidecarPolicySpec {
    /// Every key of every Secret that the policy names, each once and in order.
    pub fn secret_keys(&self) -> SecretKeys<'_> {
        let mut keys = SecretKeys::new();
        for listener in &self.http {
            if let Some(tls) = &listener.tls {
                add_listener_tls(&mut keys, tls);
            }
            if let Some(known) = &listener.authentication {
                add_known(&mut keys, known);
            }
            if let Some(export) = listener.tracing.as_ref().and_then(|tracing| tracing.export.as_ref()) {
                add_export(&mut keys, export);
            }
            for tls in listener.sites.iter().filter_map(|site| site.tls.as_ref()) {
                add_tls(&mut keys, tls);
            }
        }
        for listener in &self.tcp {
            if let Some(tls) = &listener.tls {
                add_listener_tls(&mut keys, &tls.settings);
            }
            if let Some(tls) = &listener.backend_tls {
                add_tls(&mut keys, &tls.settings);
            }
            add_check(&mut keys, &listener.health);
        }
        for check in self.udp.iter().filter_map(|listener| listener.health.as_ref()) {
            add_check(&mut keys, check);
        }
        keys
    }
}

fn add_listener_tls<'a>(keys: &mut SecretKeys<'a>, tls: &'a ListenerTlsSpec) {
    add_pair(keys, tls.certificate_secret.as_ref());
    add_key(keys, tls.client_ca.as_ref().map(|ca| &ca.secret));
}

fn add_known<'a>(keys: &mut SecretKeys<'a>, known: &'a AuthenticationSpec) {
    if let Some(of_clients) = &known.api_keys {
        keys.entry(&of_clients.secret.name).or_default().insert(&of_clients.secret.key);
    }
    let Some(jwks) = known.jwt.as_ref().map(|jwt| &jwt.jwks) else { return };
    if let Some(secret) = &jwks.secret {
        keys.entry(&secret.name).or_default().insert(&secret.key);
    }
    if let Some(tls) = &jwks.tls {
        add_tls(keys, tls);
    }
}

fn add_export<'a>(keys: &mut SecretKeys<'a>, export: &'a TraceExportSpec) {
    if let Some(secret) = &export.headers_secret {
        keys.entry(&secret.name).or_default().insert(&secret.key);
    }
    if let Some(tls) = &export.tls {
        add_tls(keys, tls);
    }
}

fn add_check<'a>(keys: &mut SecretKeys<'a>, check: &'a ServerCheckSpec) {
    let postgres = check.postgres.as_ref().and_then(|postgres| postgres.password_secret.as_ref());
    let redis = check.redis.as_ref().and_then(|redis| redis.password_secret.as_ref());
    for secret in postgres.into_iter().chain(redis) {
        keys.entry(&secret.name).or_default().insert(&secret.key);
    }
    if let Some(tls) = &check.tls {
        add_tls(keys, tls);
    }
}

fn add_tls<'a>(keys: &mut SecretKeys<'a>, tls: &'a SiteTlsSpec) {
    add_key(keys, tls.ca_secret.as_ref());
    add_pair(keys, tls.client_certificate_secret.as_ref());
}

fn add_pair<'a>(keys: &mut SecretKeys<'a>, secret: Option<&'a SecretReference>) {
    if let Some(secret) = secret {
        keys.entry(&secret.name).or_default().extend([TLS_CERTIFICATE, TLS_KEY]);
    }
}

fn add_key<'a>(keys: &mut SecretKeys<'a>, secret: Option<&'a SecretKeyReference>) {
    if let Some(secret) = secret {
        keys.entry(&secret.name).or_default().insert(&secret.key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_secret_that_a_listener_names_is_mounted() {
        let site = json!({"name": "s", "backends": [{"addresses": ["10.0.0.1:80"]}], "tls": {"caSecret": {"name": "site"}}});
        let spec: SidecarPolicySpec = serde_json::from_value(json!({"http": [{
            "name": "a", "port": 9000, "sites": [site],
            "tls": {"certificateSecret": {"name": "web"}, "clientCa": {"secret": {"name": "people"}}},
            "authentication": {
                "apiKeys": {"secret": {"name": "clients"}},
                "jwt": {"issuer": "a", "jwks": {"secret": {"name": "login", "key": "set"}}},
            },
            "tracing": {"export": {"url": "https://a", "headersSecret": {"name": "otlp"}, "tls": {"caSecret": {"name": "ca"}}}},
        }], "tcp": [{
            "name": "b", "port": 5432, "backends": [{"addresses": ["10.0.0.1:80"]}],
            "tls": {"certificateSecret": {"name": "db"}}, "backendTls": {"caSecret": {"name": "db-ca"}},
            "health": {"postgres": {"passwordSecret": {"name": "monitor"}}, "tls": {"caSecret": {"name": "check-ca"}}},
        }, {
            "name": "c", "port": 6379, "backends": [{"addresses": ["10.0.0.1:80"]}],
            "health": {"redis": {"passwordSecret": {"name": "monitor", "key": "redis"}}},
        }], "udp": [{
            "name": "d", "port": 53, "backends": [{"addresses": ["10.0.0.1:80"]}],
            "health": {"http": {"path": "/"}, "tls": {"caSecret": {"name": "names-ca"}}},
        }]}))
        .unwrap();
        let found: Vec<_> = spec
            .secret_keys()
            .into_iter()
            .flat_map(|(secret, keys)| keys.into_iter().map(move |key| format!("{secret}/{key}")))
            .collect();
        let expected = [
            "ca/ca.crt",
            "check-ca/ca.crt",
            "clients/keys",
            "db/tls.crt",
            "db/tls.key",
            "db-ca/ca.crt",
            "login/set",
            "monitor/password",
            "monitor/redis",
            "names-ca/ca.crt",
            "otlp/headers",
            "people/ca.crt",
            "site/ca.crt",
            "web/tls.crt",
            "web/tls.key",
        ];
        assert_eq!(found, expected);
    }
}
