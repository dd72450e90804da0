//! What is generated from the types: the CRD, the policy reference and the schema of SidecarConfig.

use kube::CustomResourceExt;
use serde_json::Value;

use crate::{config::SidecarConfig, policy::SidecarPolicy};

/// The CustomResourceDefinition of SidecarPolicy, as JSON.
pub fn policy_crd() -> Result<Value, serde_json::Error> {
    serde_json::to_value(SidecarPolicy::crd())
}

/// The JSON Schema of a SidecarConfig file.
pub fn config_schema() -> Value {
    schemars::schema_for!(SidecarConfig).to_value()
}
