//! What a pod's own `sidecar.io/*` annotations say: parsed once. A key that nothing reads is an error, so that a
//! misspelt one is never silently without effect.

use std::{collections::BTreeMap, str::FromStr};

use crds::{
    names::{GROUP, annotations},
    policy::{LogLevel, Mode},
    units::{Quantity, UnitError},
};

use super::{InjectError, error::shown};

/// Keys that users may write on a pod.
const USER_KEYS: [&str; 8] = [
    annotations::INJECT,
    annotations::POLICY,
    annotations::MODE,
    annotations::LOG_LEVEL,
    annotations::CPU_REQUEST,
    annotations::CPU_LIMIT,
    annotations::MEMORY_REQUEST,
    annotations::MEMORY_LIMIT,
];

/// Keys that the webhook writes. Whoever copies a running pod brings them along.
const RECORD_KEYS: [&str; 5] = [
    annotations::INJECTED_POLICY,
    annotations::INJECTED_GENERATION,
    annotations::SHAPE_HASH,
    annotations::DECISION,
    annotations::SERVICE_ACCOUNT,
];

/// A pod's overrides of its policy.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Overrides {
    pub(super) mode: Option<Mode>,
    pub(super) log_level: Option<LogLevel>,
    pub(super) cpu_request: Option<Quantity>,
    pub(super) cpu_limit: Option<Quantity>,
    pub(super) memory_request: Option<Quantity>,
    pub(super) memory_limit: Option<Quantity>,
}

impl Overrides {
    pub(super) fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, InjectError> {
        own(annotations).try_for_each(known)?;
        Ok(Self {
            mode: value(annotations, annotations::MODE)?,
            log_level: value(annotations, annotations::LOG_LEVEL)?,
            cpu_request: value(annotations, annotations::CPU_REQUEST)?,
            cpu_limit: value(annotations, annotations::CPU_LIMIT)?,
            memory_request: value(annotations, annotations::MEMORY_REQUEST)?,
            memory_limit: value(annotations, annotations::MEMORY_LIMIT)?,
        })
    }
}

/// The keys of the project's own prefix, in order.
fn own(annotations: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    annotations.keys().map(String::as_str).filter(|key| is_own(key))
}

/// Whether the key has the project's prefix.
pub(super) fn is_own(key: &str) -> bool {
    key.strip_prefix(GROUP).is_some_and(|rest| rest.starts_with('/'))
}

fn known(key: &str) -> Result<(), InjectError> {
    if USER_KEYS.contains(&key) || RECORD_KEYS.contains(&key) {
        return Ok(());
    }
    let remedy = if key == annotations::EXPORT_TO {
        "it belongs on a Namespace".to_owned()
    } else {
        let nearest = USER_KEYS.into_iter().min_by_key(|known| strsim::osa_distance(known, key));
        format!("write {}, or remove it", nearest.unwrap_or(annotations::INJECT))
    };
    Err(InjectError::UnknownAnnotation { annotation: key.to_owned(), remedy })
}

fn value<T: FromStr<Err = UnitError>>(
    annotations: &BTreeMap<String, String>,
    annotation: &'static str,
) -> Result<Option<T>, InjectError> {
    let Some(text) = annotations.get(annotation) else { return Ok(None) };
    if text.len() > 64 {
        let problem =
            format!("{} is too long for a value of it; the policy reference lists them", shown(text));
        return Err(InjectError::Annotation { annotation, problem });
    }
    text.parse()
        .map(Some)
        .map_err(|error: UnitError| InjectError::Annotation { annotation, problem: error.to_string() })
}
