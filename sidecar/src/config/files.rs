//! What is wrong with the files that a good configuration names: certificates, keys and CAs, keys of clients, and passwords.

use crds::config::{BackendTls, ServerCheck, TcpListener};

use super::{Checked, CheckedHttp, CheckedListener, Problem, lines::Lines};
use crate::{
    http::{ALPN, KeyFiles, KeySets},
    net::tls::{Client, Server, TlsError},
    probe::Password,
    telemetry::spans,
};

/// Reads every file as `sidecar run` would. `text` is what `config` was read from, for the lines.
pub fn check(text: &str, config: &Checked) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut counts = [0; 3];
    for listener in config.listeners() {
        let (kind, name) = match listener {
            CheckedListener::Http(_) => (0, "http"),
            CheckedListener::Tcp(_) => (1, "tcp"),
            CheckedListener::Udp(_) => (2, "udp"),
        };
        let path = format!("{name}[{}]", counts[kind]);
        counts[kind] += 1;
        match listener {
            CheckedListener::Http(listener) => http(listener, &path, &mut problems),
            CheckedListener::Tcp(listener) => tcp(listener.listener(), &path, &mut problems),
            CheckedListener::Udp(listener) => {
                let check = listener.listener().health.as_ref();
                check.into_iter().for_each(|check| health(check, &path, &mut problems));
            }
        }
    }
    if !problems.is_empty() {
        Lines::of(text).place(&mut problems);
    }
    problems
}

fn http(listener: &CheckedHttp, path: &str, problems: &mut Vec<Problem>) {
    let server = listener.listener().tls.as_ref().map(|tls| Server::load(tls, ALPN));
    problems.extend(server.and_then(Result::err).map(|error| problem(path, &error)));
    let settings = listener.listener().authentication.as_ref();
    if let Some(keys) = settings.and_then(|settings| settings.api_keys.as_ref())
        && let Err(error) = KeyFiles::check(&keys.file)
    {
        problems.push(told(format!("{path}.authentication.apiKeys.file"), &error));
    }
    if let Some(jwks) = settings.and_then(|settings| settings.jwt.as_ref()).map(|jwt| &jwt.jwks) {
        let path = format!("{path}.authentication.jwt.jwks");
        let file = jwks.file.as_ref().map(|file| KeySets::check(file));
        problems.extend(file.and_then(Result::err).map(|error| told(format!("{path}.file"), &error)));
        let client = jwks.tls.as_ref().map(Client::load);
        problems.extend(client.and_then(Result::err).map(|error| problem(&path, &error)));
    }
    let tracing = listener.listener().tracing.as_ref();
    if let Some(export) = tracing.and_then(|tracing| tracing.export.as_ref()) {
        let path = format!("{path}.tracing.export");
        let headers = spans::check(export).err();
        problems.extend(headers.map(|error| told(format!("{path}.headersFile"), &error)));
        let client = export.tls.as_ref().map(Client::load);
        problems.extend(client.and_then(Result::err).map(|error| problem(&path, &error)));
    }
    for (index, site) in listener.sites().iter().enumerate() {
        let client = site.tls().map(Client::load);
        let path = format!("{path}.sites[{index}]");
        problems.extend(client.and_then(Result::err).map(|error| problem(&path, &error)));
    }
}

fn tcp(listener: &TcpListener, path: &str, problems: &mut Vec<Problem>) {
    let server = listener.tls.as_ref().map(|tls| Server::load(&tls.settings, &[]));
    problems.extend(server.and_then(Result::err).map(|error| problem(path, &error)));
    let settings = listener.backend_tls.as_ref().map(|tls| &tls.settings);
    problems.extend(client(settings, &format!("{path}.backendTls")));
    health(&listener.health, path, problems);
}

fn health(check: &ServerCheck, path: &str, problems: &mut Vec<Problem>) {
    let path = format!("{path}.health");
    if let Some((field, file)) = check.password_file()
        && let Err(error) = Password::read(file)
    {
        problems.push(told(format!("{path}.{field}"), &error));
    }
    problems.extend(client(check.tls.as_ref(), &format!("{path}.tls")));
}

/// `path` is that of the settings.
fn client(settings: Option<&BackendTls>, path: &str) -> Option<Problem> {
    let error = settings.map(Client::load)?.err()?;
    let field = error.field();
    let separator = if field.is_empty() { "" } else { "." };
    Some(told(format!("{path}{separator}{field}"), &error))
}

fn problem(path: &str, error: &TlsError) -> Problem {
    let field = error.field();
    let separator = if field.is_empty() { "" } else { "." };
    told(format!("{path}.tls{separator}{field}"), error)
}

/// The messages of these errors say what is wrong, then `; `, then the remedy.
fn told(path: String, error: &impl ToString) -> Problem {
    let text = error.to_string();
    let (message, remedy) = text.rsplit_once("; ").unwrap_or((&text, ""));
    Problem::at(path, message, remedy)
}
