//! What is wrong with the files that a good configuration names: certificates, keys and CAs.

use super::{Checked, Problem, lines::Lines};
use crate::{
    http::ALPN,
    net::tls::{Client, Server, TlsError},
};

/// Reads every file as `sidecar run` would. `text` is what `config` was read from, for the lines.
pub fn check(text: &str, config: &Checked) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (index, listener) in config.http().iter().enumerate() {
        let path = format!("http[{index}]");
        let server = listener.listener().tls.as_ref().map(|tls| Server::load(tls, ALPN));
        problems.extend(server.and_then(Result::err).map(|error| problem(&path, &error)));
        for (index, site) in listener.sites().iter().enumerate() {
            let client = site.tls().map(Client::load);
            let path = format!("{path}.sites[{index}]");
            problems.extend(client.and_then(Result::err).map(|error| problem(&path, &error)));
        }
    }
    if !problems.is_empty() {
        Lines::of(text).place(&mut problems);
    }
    problems
}

/// The message of a [`TlsError`] says what is wrong, then `; `, then the remedy.
fn problem(path: &str, error: &TlsError) -> Problem {
    let text = error.to_string();
    let (message, remedy) = text.rsplit_once("; ").unwrap_or((&text, ""));
    let field = error.field();
    let separator = if field.is_empty() { "" } else { "." };
    Problem::at(format!("{path}.tls{separator}{field}"), message, remedy)
}
