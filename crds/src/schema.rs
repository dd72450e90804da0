//! Small builders for the parts of a CRD schema that `schemars` has no attribute for.

use schemars::{Schema, json_schema};

/// A string that matches `pattern` and has at most `max_length` characters.
pub(crate) fn string(pattern: &str, max_length: u32, description: &str) -> Schema {
    json_schema!({
        "type": "string",
        "pattern": pattern,
        "maxLength": max_length,
        "description": description,
    })
}
