//! TLS of a policy -> TLS of a SidecarConfig: Secrets become the files that the kubelet mounts. Pure; no client required.
//!
//! Whether a Secret exists is not asked: that needs the right to read it, and the operator reads no Secrets but its own. A pod
//! whose Secret is missing waits, and its events say for what.

use crds::{
    config::{BackendTls, ClientCa, KeyPairFiles, ListenerTls, TcpBackendTls, TcpListenerTls},
    names::secret_file,
    policy::{
        ClientCaSpec, ListenerTlsSpec, SecretKeyReference, SecretReference, SiteTlsSpec, TLS_CERTIFICATE,
        TLS_KEY, TcpBackendTlsSpec, TcpListenerTlsSpec,
    },
};

pub(super) fn listener(tls: &ListenerTlsSpec) -> ListenerTls {
    let pair = tls.certificate_secret.as_ref().map(pair);
    let client_ca = |ca: &ClientCaSpec| ClientCa { file: file(&ca.secret), mode: ca.mode };
    ListenerTls {
        certificate_file: pair.as_ref().map(|pair| pair.certificate_file.clone()),
        key_file: pair.map(|pair| pair.key_file),
        key_password_file: None,
        self_signed: tls.self_signed.clone(),
        client_ca: tls.client_ca.as_ref().map(client_ca),
        min_version: tls.min_version,
        ..ListenerTls::default()
    }
}

pub(super) fn site(tls: &SiteTlsSpec) -> BackendTls {
    BackendTls {
        ca_file: tls.ca_secret.as_ref().map(file),
        server_name: tls.server_name.clone(),
        insecure_skip_verify: tls.insecure_skip_verify,
        client_certificate: tls.client_certificate_secret.as_ref().map(pair),
        min_version: tls.min_version,
        max_version: tls.max_version,
    }
}

pub(super) fn tcp_listener(tls: &TcpListenerTlsSpec) -> TcpListenerTls {
    TcpListenerTls { settings: listener(&tls.settings), start_tls: tls.start_tls, plain_text: tls.plain_text }
}

pub(super) fn tcp_backends(tls: &TcpBackendTlsSpec) -> TcpBackendTls {
    TcpBackendTls { settings: site(&tls.settings), start_tls: tls.start_tls }
}

fn pair(secret: &SecretReference) -> KeyPairFiles {
    KeyPairFiles {
        certificate_file: secret_file(&secret.name, TLS_CERTIFICATE),
        key_file: secret_file(&secret.name, TLS_KEY),
        key_password_file: None,
    }
}

fn file(secret: &SecretKeyReference) -> String {
    secret_file(&secret.name, &secret.key)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_secret_becomes_the_files_that_the_webhook_mounts() {
        let of_listener = serde_json::from_value(json!({
            "certificateSecret": {"name": "web-tls"},
            "clientCa": {"secret": {"name": "clients"}, "mode": "Optional"},
            "minVersion": "TLSv1.3",
        }));
        let expected = json!({
            "certificateFile": "/var/run/sidecar-secrets/web-tls/tls.crt",
            "keyFile": "/var/run/sidecar-secrets/web-tls/tls.key",
            "clientCa": {"file": "/var/run/sidecar-secrets/clients/ca.crt", "mode": "Optional"},
            "minVersion": "TLSv1.3",
        });
        assert_eq!(serde_json::to_value(listener(&of_listener.unwrap())).unwrap(), expected);
        let of_site = serde_json::from_value(json!({
            "caSecret": {"name": "dr-ca", "key": "root.pem"},
            "serverName": "s3.example.com",
            "clientCertificateSecret": {"name": "spark"},
            "minVersion": "TLSv1.3",
            "maxVersion": "TLSv1.2",
        }));
        let expected = json!({
            "caFile": "/var/run/sidecar-secrets/dr-ca/root.pem",
            "serverName": "s3.example.com",
            "insecureSkipVerify": false,
            "clientCertificate": {
                "certificateFile": "/var/run/sidecar-secrets/spark/tls.crt",
                "keyFile": "/var/run/sidecar-secrets/spark/tls.key",
            },
            "minVersion": "TLSv1.3",
            "maxVersion": "TLSv1.2",
        });
        assert_eq!(serde_json::to_value(site(&of_site.unwrap())).unwrap(), expected);
    }
}
