//! Golden files: each command line in tests/balance/*.args with the configuration that it makes, or the one line that it
//! is refused with. `UPDATE_GOLDEN=1` rewrites them.

use std::{fs, path::Path};

use crds::config::TlsVersion;

use super::config::{Facts, config};
use crate::command::{Action, Command};

fn facts() -> Facts {
    Facts { ipv6: true, key_password_file: Some("/proc/self/fd/9".to_owned()) }
}

fn outcome(line: &str) -> String {
    let arguments = line.split_whitespace().map(Into::into);
    let command = match Command::read(arguments) {
        Ok(command) => command,
        Err(error) => return format!("{}\n", super::super::usage::line(&error.to_string())),
    };
    let Action::Balance(balance) = command.action else { panic!("{line} is not balance") };
    if let Err(error) = balance.document(&facts()) {
        return format!("{error:#}\n");
    }
    serde_yaml::to_string(&config(&balance, &facts()).unwrap()).unwrap()
}

#[test]
fn every_command_line_makes_a_configuration_or_one_line() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/balance");
    let mut files = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "args") {
            continue;
        }
        files += 1;
        let found: String = fs::read_to_string(&path)
            .unwrap()
            .lines()
            .map(|line| format!("$ {line}\n{}", outcome(line)))
            .collect::<Vec<_>>()
            .join("\n");
        let golden = path.with_extension("txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &found).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(found, expected, "{}: set UPDATE_GOLDEN=1 if the new text is right", path.display());
    }
    assert!(files >= 2);
}

#[test]
fn without_ipv6_all_addresses_are_those_of_ipv4() {
    let command = Command::read(["sidekick", "http://a:1"].map(Into::into)).unwrap();
    let Action::Balance(balance) = command.action else { panic!("not balance") };
    let config = config(&balance, &Facts::default()).unwrap();
    assert_eq!(config.http[0].socket_address().to_string(), "0.0.0.0:8080");
}

#[test]
fn the_flags_of_tls_name_the_files_of_the_listener_and_of_the_servers() {
    let line = "sidekick --cert a.crt --key a.key --key-password secret --tls-max 1.2 --cacert ca.crt \
                --client-cert c.crt --client-key c.key https://a:1 http://b:1";
    let command = Command::read(line.split_whitespace().map(Into::into)).unwrap();
    let Action::Balance(balance) = command.action else { panic!("not balance") };
    let config = config(&balance, &facts()).unwrap();
    let listener = config.http[0].tls.as_ref().unwrap();
    assert_eq!(
        (listener.certificate_file.as_deref(), listener.key_file.as_deref(), listener.max_version),
        (Some("a.crt"), Some("a.key"), TlsVersion::V12)
    );
    assert_eq!(listener.key_password_file.as_deref(), Some("/proc/self/fd/9"), "and not the password itself");
    let [secure, plain] = &config.http[0].sites[..] else { panic!("two sites") };
    let servers = secure.tls.as_ref().unwrap();
    let pair = servers.client_certificate.as_ref().unwrap();
    assert_eq!(servers.ca_file.as_deref(), Some("ca.crt"));
    assert_eq!((pair.certificate_file.as_str(), pair.key_file.as_str()), ("c.crt", "c.key"));
    assert_eq!(servers.max_version, TlsVersion::V12);
    assert!(!servers.insecure_skip_verify && plain.tls.is_none());
}
