//! Every wrong file gives one line that names it and the remedy, before anything listens.

use crds::config::{BackendTls, ListenerTls};
use sidecar::{
    http::ALPN,
    net::tls::{Client, Server},
};

use crate::support::tls::{Authority, Volume};

/// A file that OpenSSL made.
fn made(name: &str) -> String {
    format!("{}/tests/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn listener(certificate: &str, key: &str, password: Option<&str>) -> ListenerTls {
    ListenerTls {
        certificate_file: Some(certificate.to_owned()),
        key_file: Some(key.to_owned()),
        key_password_file: password.map(str::to_owned),
        ..ListenerTls::default()
    }
}

/// The field and the text of the error, which is one line with a remedy.
fn error(settings: &ListenerTls) -> (&'static str, String) {
    let error = Server::load(settings, ALPN).err().unwrap();
    let text = error.to_string();
    assert!(!text.contains('\n') && text.contains("; "), "{text}");
    (error.field(), text)
}

#[test]
fn every_wrong_file_is_named_with_the_remedy() {
    let authority = Authority::new();
    let (pair, other) = (authority.issue(&["a.test"]), authority.issue(&["a.test"]));
    let volume = Volume::new(&[
        ("tls.crt", &pair.certificate),
        ("tls.key", &pair.key),
        ("other.key", &other.key),
        ("empty", ""),
        ("text", "no PEM at all"),
        ("damaged.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("large", &"#".repeat((1 << 20) + 1)),
        ("password", "secret\n"),
        ("wrong-password", "public"),
    ]);
    let path = |name: &str| volume.path(name);
    let (certificate, key) = (path("tls.crt"), path("tls.key"));
    let encrypted = made("encrypted.crt");
    for (settings, field, told) in [
        (listener(&path("gone"), &key, None), "certificateFile", "gone cannot be read"),
        (listener(&certificate, &path("gone"), None), "keyFile", "gone cannot be read"),
        (listener(&path("."), &key, None), "certificateFile", "cannot be read"),
        (listener(&path("empty"), &key, None), "certificateFile", "has no certificate in PEM"),
        (listener(&path("text"), &key, None), "certificateFile", "has no certificate in PEM"),
        (listener(&key, &key, None), "certificateFile", "has no certificate in PEM"),
        (listener(&path("damaged.crt"), &key, None), "certificateFile", "certificate 1 in"),
        (listener(&path("large"), &key, None), "certificateFile", "has more than 1048576 bytes"),
        (listener(&certificate, &path("text"), None), "keyFile", "has no private key in PEM"),
        (listener(&certificate, &certificate, None), "keyFile", "has no private key in PEM"),
        (listener(&certificate, &path("other.key"), None), "keyFile", "is not that of the first certificate"),
        (listener(&encrypted, &made("encrypted.key"), None), "keyFile", "in keyPasswordFile"),
        (
            listener(&encrypted, &made("encrypted.key"), Some(&path("wrong-password"))),
            "keyFile",
            "check the password",
        ),
        (
            listener(&encrypted, &made("encrypted.key"), Some(&path("gone"))),
            "keyPasswordFile",
            "cannot be read",
        ),
        (
            listener(&encrypted, &made("old-encryption.key"), Some(&path("password"))),
            "keyFile",
            "openssl pkcs8 -topk8",
        ),
        (listener(&made("p521.crt"), &made("p521.key"), None), "keyFile", "P-256 or P-384"),
        (listener(&made("rsa1024.crt"), &made("rsa1024.key"), None), "keyFile", "RSA of 2048"),
        (ListenerTls::default(), "", "certificateFile and keyFile, or selfSigned"),
    ] {
        let found = error(&settings);
        assert_eq!(found.0, field, "{settings:?}: {}", found.1);
        assert!(found.1.contains(told), "{settings:?}: {}", found.1);
        assert!(!found.1.contains("secret") && !found.1.contains("public"), "{}", found.1);
    }
    let ca = |name: &str| BackendTls { ca_file: Some(path(name)), ..BackendTls::default() };
    for (name, told) in
        [("gone", "cannot be read"), ("tls.key", "has no certificate"), ("damaged.crt", "certificate 1 in")]
    {
        let error = Client::load(&ca(name)).err().unwrap();
        assert_eq!(error.field(), "caFile");
        assert!(error.to_string().contains(told), "{error}");
    }
}

#[test]
fn an_encrypted_key_is_read_with_its_password() {
    let volume = Volume::new(&[("password", "secret\n")]);
    for key in ["encrypted.key", "scrypt.key"] {
        let settings = listener(&made("encrypted.crt"), &made(key), Some(&volume.path("password")));
        Server::load(&settings, ALPN).map(drop).unwrap();
    }
}
