//! What is generated from the types: the CRD, the policy reference and the schema of SidecarConfig.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{config::SidecarConfig, policy::SidecarPolicy};

/// The CustomResourceDefinition of SidecarPolicy, as JSON.
pub fn policy_crd() -> Result<Value, serde_json::Error> {
    let mut crd = serde_json::to_value(SidecarPolicy::crd())?;
    // A policy's name becomes the value of labels, which hold 63 characters.
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["x-kubernetes-validations"] = json!([{
        "rule": "self.metadata.name.size() <= 63",
        "message": "the name of a policy has at most 63 characters",
    }]);
    drop_formats(&mut crd);
    Ok(crd)
}

/// The API server warns at each install about formats that are Rust's own, such as `uint16`.
fn drop_formats(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            members.retain(|name, value| {
                name != "format" || !value.as_str().is_some_and(|f| f.starts_with("uint"))
            });
            members.values_mut().for_each(drop_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_formats),
        _ => {}
    }
}

/// The JSON Schema of a SidecarConfig file.
pub fn config_schema() -> Value {
    schemars::schema_for!(SidecarConfig).to_value()
}
