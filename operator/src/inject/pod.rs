//! A reading view of a pod's JSON. What is absent, null or of another type is simply not there: the API server refuses
//! what is wrong, and nothing here can lose it.

use std::collections::BTreeMap;

use crds::names::{CONTAINER, annotations, volumes};
use serde_json::{Map, Value};

use super::{InjectError, overrides};

/// Written by kubelets on the API's copies of static pods, which cannot be changed.
const MIRROR: &str = "kubernetes.io/config.mirror";

#[derive(Debug)]
pub(super) struct Pod<'a> {
    pub(super) metadata: Option<&'a Map<String, Value>>,
    pub(super) spec: Option<&'a Map<String, Value>>,
}

impl<'a> Pod<'a> {
    pub(super) fn new(pod: &'a Value) -> Self {
        let object = |key: &str| pod.get(key).and_then(Value::as_object);
        Self { metadata: object("metadata"), spec: object("spec") }
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&'a Value> {
        self.metadata_map("annotations")?.get(key)
    }

    pub(super) fn is_mirror(&self) -> bool {
        self.annotation(MIRROR).is_some()
    }

    pub(super) fn labels(&self) -> BTreeMap<String, String> {
        texts(self.metadata_map("labels"))
    }

    /// All annotations. One of ours that is not a text is an error, for the user meant it to have an effect.
    pub(super) fn annotations(&self) -> Result<BTreeMap<String, String>, InjectError> {
        let map = self.metadata_map("annotations");
        if let Some((key, _)) =
            map.into_iter().flatten().find(|(key, value)| overrides::is_own(key) && !value.is_string())
        {
            return Err(InjectError::NotText { annotation: key.clone() });
        }
        Ok(texts(map))
    }

    pub(super) fn init_containers(&self) -> &'a [Value] {
        self.list("initContainers")
    }

    pub(super) fn containers(&self) -> &'a [Value] {
        self.list("containers")
    }

    pub(super) fn volumes(&self) -> &'a [Value] {
        self.list("volumes")
    }

    /// The container with the sidecar's name, wherever it stands.
    pub(super) fn sidecar(&self) -> Option<&'a Value> {
        self.init_containers().iter().chain(self.containers()).find(|container| name(container) == CONTAINER)
    }

    /// The policy that a former injection recorded.
    pub(super) fn recorded_policy(&self) -> Option<&'a str> {
        self.annotation(annotations::INJECTED_POLICY)?.as_str()
    }

    pub(super) fn service_account(&self) -> &'a str {
        let text = |key: &str| self.spec?.get(key)?.as_str().filter(|name| !name.is_empty());
        text("serviceAccountName").or_else(|| text("serviceAccount")).unwrap_or("default")
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        self.spec.and_then(|spec| spec.get(key)).and_then(Value::as_bool).unwrap_or(false)
    }

    pub(super) fn is_windows(&self) -> bool {
        self.spec.and_then(|spec| spec.get("os")?.get("name")?.as_str()) == Some("windows")
    }

    /// Whether the pod is meant to end by itself, as those of Jobs are.
    pub(super) fn ends(&self) -> bool {
        let policy = self.spec.and_then(|spec| spec.get("restartPolicy")?.as_str());
        matches!(policy, Some("Never" | "OnFailure"))
    }

    pub(super) fn metadata_map(&self, key: &str) -> Option<&'a Map<String, Value>> {
        self.metadata?.get(key)?.as_object()
    }

    fn list(&self, key: &str) -> &'a [Value] {
        self.spec.and_then(|spec| spec.get(key)).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

/// The `name` of a container or volume.
pub(super) fn name(item: &Value) -> &str {
    item.get("name").and_then(Value::as_str).unwrap_or_default()
}

/// Whether the container has the mount that makes it the sidecar, whoever added it.
pub(super) fn mounts_config(container: &Value) -> bool {
    let mounts = container.get("volumeMounts").and_then(Value::as_array);
    mounts.into_iter().flatten().any(|mount| name(mount) == volumes::CONFIG)
}

fn texts(map: Option<&Map<String, Value>>) -> BTreeMap<String, String> {
    let entries = map.into_iter().flatten();
    entries.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}
