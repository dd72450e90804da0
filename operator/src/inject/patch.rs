//! RFC 6902 patches that can only add.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

use super::{
    pod::{Pod, name},
    shape::{Placement, Shape},
};

/// One `add` operation; the type has no other.
#[derive(Debug, Clone, PartialEq)]
pub struct PatchOperation {
    /// JSON pointer.
    pub path: String,
    pub value: Value,
}

impl Serialize for PatchOperation {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut operation = serializer.serialize_struct("PatchOperation", 3)?;
        operation.serialize_field("op", "add")?;
        operation.serialize_field("path", &self.path)?;
        operation.serialize_field("value", &self.value)?;
        operation.end()
    }
}

/// The annotations, one by one where the pod has some. An `add` to a key that exists replaces its value, so that callers
/// give only keys that are the webhook's own or absent.
pub(super) fn annotations(pod: &Pod<'_>, annotations: Vec<(&str, String)>) -> Vec<PatchOperation> {
    let values = annotations.into_iter().map(|(key, value)| (key, Value::String(value)));
    if pod.metadata_map("annotations").is_some() {
        return values
            .map(|(key, value)| PatchOperation {
                path: format!("/metadata/annotations/{}", escape(key)),
                value,
            })
            .collect();
    }
    let map: Map<String, Value> = values.map(|(key, value)| (key.to_owned(), value)).collect();
    match pod.metadata {
        Some(_) => vec![add("/metadata/annotations", map.into())],
        None => vec![add("/metadata", serde_json::json!({"annotations": map}))],
    }
}

/// The container, at the front of its list.
pub(super) fn container(pod: &Pod<'_>, shape: Shape) -> PatchOperation {
    let list = match shape.placement {
        Placement::Native => "initContainers",
        Placement::Container => "containers",
    };
    match has_list(pod, list) {
        true => add(&format!("/spec/{list}/0"), shape.container),
        false => add(&format!("/spec/{list}"), Value::Array(vec![shape.container])),
    }
}

/// The volumes that the pod does not have yet, at the end of its list.
pub(super) fn volumes(pod: &Pod<'_>, shape: &Shape) -> Vec<PatchOperation> {
    let absent = |volume: &str| pod.volumes().iter().all(|other| name(other) != volume);
    let missing: Vec<Value> =
        shape.volumes.iter().filter(|(name, _)| absent(name)).map(|(_, volume)| volume.clone()).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    if has_list(pod, "volumes") {
        return missing.into_iter().map(|volume| add("/spec/volumes/-", volume)).collect();
    }
    vec![add("/spec/volumes", missing.into())]
}

fn has_list(pod: &Pod<'_>, key: &str) -> bool {
    pod.spec.and_then(|spec| spec.get(key)).is_some_and(Value::is_array)
}

fn add(path: &str, value: Value) -> PatchOperation {
    PatchOperation { path: path.to_owned(), value }
}

/// A key as one token of a JSON pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
