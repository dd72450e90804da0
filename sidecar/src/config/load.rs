//! bytes -> text -> value -> typed -> rules -> [`Checked`]. The full diagnosis runs only when a step has failed, so that
//! a good file costs two plain decodes.

use std::net::SocketAddr;

use crds::config::SidecarConfig;
use serde_json::Value;

use super::{
    Checked, Problem, Rejected, diagnose,
    lines::Lines,
    places::{self, Listeners},
    rules, shape,
};

/// Largest configuration that is read. A ConfigMap cannot be larger.
pub const MAX_SIZE: usize = 1024 * 1024;

/// A configuration, and what its writer should know about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    pub config: Checked,
    /// Unknown fields and the like, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Reads a configuration. `admin` is the address of the sidecar's own endpoints, which no listener may take.
pub fn load(bytes: &[u8], admin: SocketAddr) -> Result<Loaded, Rejected> {
    let text = text(bytes)?;
    let value: Value = match serde_yaml::from_str(text) {
        Ok(value) => value,
        Err(error) => return Err(rejected(vec![syntax(&error)])),
    };
    let Ok(config) = serde_yaml::from_str::<SidecarConfig>(text) else {
        return Err(diagnose::undecodable(text, &value, admin));
    };
    let mut problems = rules::check(&Listeners::from(&config), admin);
    problems.extend(places::missing_ports(&value));
    let shape = shape::Shape::of(&value);
    if !problems.is_empty() || !shape.problems.is_empty() {
        return Err(diagnose::wrong(text, problems, shape));
    }
    let mut warnings = shape.unknown;
    if config.http.is_empty() && config.tcp.is_empty() && config.udp.is_empty() {
        warnings.push(Problem::at(
            "http",
            "there are no listeners, so that the sidecar does nothing",
            "add a listener under http, tcp or udp",
        ));
    }
    if !warnings.is_empty() {
        Lines::of(text).place(&mut warnings);
    }
    Ok(Loaded { config: Checked::new(config), warnings })
}

fn text(bytes: &[u8]) -> Result<&str, Rejected> {
    let whole = |message: String, remedy: &str| rejected(vec![Problem::at("", message, remedy)]);
    if bytes.len() > MAX_SIZE {
        let message = format!("the file has {} bytes, and at most {MAX_SIZE} are read", bytes.len());
        return Err(whole(message, "make it smaller"));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| whole(format!("the file is not UTF-8: {error}"), "save it as UTF-8"))?;
    if text.trim().is_empty() {
        return Err(whole(
            "the file is empty".to_owned(),
            "write at least one listener under http, tcp or udp",
        ));
    }
    Ok(text)
}

fn syntax(error: &serde_yaml::Error) -> Problem {
    Problem {
        line: error.location().map(|location| location.line()),
        path: String::new(),
        message: format!("this is not YAML: {error}"),
        remedy: "check indentation, colons and brackets at this line and the one before".to_owned(),
    }
}

fn rejected(problems: Vec<Problem>) -> Rejected {
    Rejected { problems, warnings: Vec::new() }
}
