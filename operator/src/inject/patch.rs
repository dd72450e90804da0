//! RFC 6902 patches that can only add.

use serde::{Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

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
