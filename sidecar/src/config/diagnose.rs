//! Everything that is wrong with a file that cannot be used: shape, rules, duplicate keys, each with its line.

use std::net::SocketAddr;

use crds::config::{HttpListener, SidecarConfig, TcpListener, UdpListener};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    Problem, Rejected,
    lines::{self, Lines},
    places::{self, Listeners},
    rules,
    shape::Shape,
};

/// For a file that is YAML and yet no configuration. The rules are checked for the listeners that can be read.
pub(super) fn undecodable(text: &str, value: &Value, admin: SocketAddr) -> Rejected {
    let http: Vec<Option<HttpListener>> = listeners(value, "http");
    let tcp: Vec<Option<TcpListener>> = listeners(value, "tcp");
    let udp: Vec<Option<UdpListener>> = listeners(value, "udp");
    let readable = Listeners {
        http: http.iter().map(Option::as_ref).collect(),
        tcp: tcp.iter().map(Option::as_ref).collect(),
        udp: udp.iter().map(Option::as_ref).collect(),
    };
    let mut problems = rules::check(&readable, admin);
    problems.extend(places::missing_ports(value));
    let mut rejected = wrong(text, problems, Shape::of(value));
    if rejected.problems.is_empty() {
        let mut problems = vec![undecoded(text, value)];
        Lines::of(text).place(&mut problems);
        rejected.problems = problems;
    }
    rejected
}

/// The listeners of a kind, those that can be read.
fn listeners<L: DeserializeOwned>(value: &Value, kind: &str) -> Vec<Option<L>> {
    let items = value.get(kind).and_then(Value::as_array).into_iter().flatten();
    items.map(|item| L::deserialize(item).ok()).collect()
}

/// Puts together what was found, in the order of the file.
pub(super) fn wrong(text: &str, mut problems: Vec<Problem>, shape: Shape) -> Rejected {
    let Shape { problems: misshapen, unknown: mut warnings } = shape;
    problems.extend(misshapen);
    problems.extend(lines::duplicate_key(text));
    let lines = Lines::of(text);
    lines.place(&mut problems);
    lines.place(&mut warnings);
    Rejected { problems, warnings }
}

/// What the decoder says, for an error that the schema does not know of.
fn undecoded(text: &str, value: &Value) -> Problem {
    match serde_path_to_error::deserialize::<_, SidecarConfig>(value) {
        Err(error) => {
            let path = error.path().to_string();
            Problem::at(path, error.into_inner().to_string(), "see the policy reference for this field")
        }
        Ok(_) => {
            let error = serde_yaml::from_str::<SidecarConfig>(text).err();
            let message = error.map_or_else(|| "this is no configuration".to_owned(), |e| e.to_string());
            Problem::at("", message, "see the policy reference")
        }
    }
}
