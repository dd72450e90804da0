//! Checks of a policy -> checks of a SidecarConfig: Secrets become the files that the kubelet mounts. Pure; no client required.

use crds::{
    config::{PostgresCheck, RedisCheck, ServerCheck},
    names::secret_file,
    policy::{PasswordSecret, PostgresCheckSpec, RedisCheckSpec, ServerCheckSpec},
};

use super::tls;

pub(super) fn server(check: &ServerCheckSpec) -> ServerCheck {
    ServerCheck {
        http: check.http.clone(),
        postgres: check.postgres.as_ref().map(postgres),
        redis: check.redis.as_ref().map(redis),
        udp: check.udp.clone(),
        tls: check.tls.as_ref().map(tls::site),
        port: check.port,
        interval: check.interval,
        jitter_percent: check.jitter_percent,
        timeout: check.timeout,
        healthy_threshold: check.healthy_threshold,
        unhealthy_threshold: check.unhealthy_threshold,
        panic: check.panic,
    }
}

fn postgres(check: &PostgresCheckSpec) -> PostgresCheck {
    PostgresCheck {
        user: check.user.clone(),
        database: check.database.clone(),
        password_file: check.password_secret.as_ref().map(file),
        role: check.role,
    }
}

fn redis(check: &RedisCheckSpec) -> RedisCheck {
    RedisCheck {
        user: check.user.clone(),
        password_file: check.password_secret.as_ref().map(file),
        role: check.role,
    }
}

fn file(secret: &PasswordSecret) -> String {
    secret_file(&secret.name, &secret.key)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn resolved(check: Value) -> Value {
        let spec: ServerCheckSpec = serde_json::from_value(check).unwrap();
        serde_json::to_value(server(&spec)).unwrap()
    }

    #[test]
    fn passwords_become_the_files_that_the_webhook_mounts() {
        let check = resolved(json!({
            "postgres": {"user": "monitor", "database": "app", "passwordSecret": {"name": "db"}, "role": "Primary"},
            "tls": {"caSecret": {"name": "ca"}},
        }));
        let expected = json!({
            "user": "monitor", "database": "app", "passwordFile": "/var/run/sidecar-secrets/db/password", "role": "Primary",
        });
        assert_eq!(check["postgres"], expected);
        assert_eq!(check["tls"]["caFile"], "/var/run/sidecar-secrets/ca/ca.crt");
        let check = resolved(json!({
            "redis": {"user": "monitor", "passwordSecret": {"name": "cache", "key": "redis"}, "role": "Replica"},
        }));
        let expected = json!({
            "user": "monitor", "passwordFile": "/var/run/sidecar-secrets/cache/redis", "role": "Replica",
        });
        assert_eq!(check["redis"], expected);
    }

    #[test]
    fn all_else_goes_on_as_it_was_written() {
        let check = json!({
            "udp": {"sendHex": "0a1b", "expect": "ok"}, "port": 8080, "interval": "7s", "jitterPercent": 1, "timeout": "3s",
            "healthyThreshold": 2, "unhealthyThreshold": 4, "panic": false,
        });
        assert_eq!(resolved(check.clone()), check);
        let by_default = serde_json::to_value(ServerCheck::default()).unwrap();
        assert_eq!(resolved(json!({})), by_default, "the defaults are those of a sidecar without a policy");
        let check = resolved(json!({"http": {"path": "/health?ready=1"}, "postgres": {}}));
        assert_eq!(check["http"], json!({"path": "/health?ready=1", "expectedStatuses": [200]}));
        assert_eq!(check["postgres"], json!({"user": "sidecar"}));
    }
}
