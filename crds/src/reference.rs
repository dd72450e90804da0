//! The policy reference: the schema that the API server enforces, as a page to read.

use std::fmt::Write;

use serde_json::Value;

const INTRODUCTION: &str = "# Policy reference

Generated from the types: what `kubectl explain sidecarpolicy` prints, in one page. Durations are written as the
Gateway API writes them (`500ms`, `5s`, `1h30m`), amounts of CPU and memory as Kubernetes quantities (`50m`, `128Mi`).
A field that is not here is refused by `kubectl apply`.

```yaml
apiVersion: sidecar.io/v1alpha1
kind: SidecarPolicy
metadata:
  name: data
  namespace: analytics
spec:
  podSelector: {matchLabels: {team: data}}
  http:
  - name: minio
    port: 9000
    sites:
    - name: primary
      backends: [{service: {name: minio, namespace: storage, port: 9000}}]
    - name: recovery
      backends: [{addresses: [\"10.9.0.{1...4}:9000\"]}]
    health: {path: /minio/health/ready}
```
";

/// Objects of Kubernetes itself, whose fields are documented there.
const FOREIGN: [&str; 2] = [".podSelector", ".conditions[]"];

/// Renders the CRD's schema as Markdown: one table for each object, outermost first.
pub fn policy(crd: &Value) -> String {
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let mut page = INTRODUCTION.to_owned();
    for part in ["spec", "status"] {
        object(&mut page, part, &schema["properties"][part]);
    }
    page
}

fn object(page: &mut String, path: &str, schema: &Value) {
    let Some(properties) = schema["properties"].as_object() else { return };
    let required: Vec<&str> = strings(&schema["required"]);
    // Writing to a String cannot fail.
    let _ = writeln!(page, "\n## `{path}`\n\n{}", line(&schema["description"]));
    for rule in rules(schema) {
        let _ = writeln!(page, "\n- {rule}");
    }
    let _ = writeln!(page, "\n| field | type | default | what it is |\n|---|---|---|---|");
    for (name, property) in properties {
        let mut text = line(&property["description"]);
        for part in limits(property).into_iter().chain(rules(property)).chain(rules(&property["items"])) {
            let _ = write!(text, " {}.", part.trim_end_matches('.'));
        }
        let default = match (&property["default"], required.contains(&name.as_str())) {
            (Value::Null, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (Value::Object(_), _) => "see below".to_owned(),
            (value, _) => format!("`{}`", plain(value)),
        };
        let _ =
            writeln!(page, "| `{name}` | {} | {default} | {} |", kind(property), text.replace('|', "\\|"));
    }
    for (name, property) in properties {
        let list = property["items"]["properties"].is_object();
        let path = format!("{path}.{name}{}", if list { "[]" } else { "" });
        if !FOREIGN.iter().any(|foreign| path.ends_with(foreign)) {
            object(page, &path, if list { &property["items"] } else { property });
        }
    }
}

fn kind(property: &Value) -> String {
    if property["x-kubernetes-int-or-string"] == true {
        return "integer or string".to_owned();
    }
    if let Some(values) = property["enum"].as_array() {
        return values.iter().map(|value| format!("`{}`", plain(value))).collect::<Vec<_>>().join(", ");
    }
    match property["type"].as_str() {
        Some("array") => format!("list of {}", property["items"]["type"].as_str().unwrap_or("values")),
        Some(other) => other.to_owned(),
        None => "value".to_owned(),
    }
}

fn limits(property: &Value) -> Vec<String> {
    let number = |name: &str| property[name].as_f64();
    let mut limits = Vec::new();
    match (number("minimum"), number("maximum")) {
        (Some(low), Some(high)) => limits.push(format!("From {low} to {high}")),
        (Some(low), None) if low != 0.0 => limits.push(format!("At least {low}")),
        _ => {}
    }
    match (number("minItems"), number("maxItems")) {
        (Some(low), Some(high)) => limits.push(format!("{low} to {high} of them")),
        (None, Some(high)) => limits.push(format!("At most {high} of them")),
        _ => {}
    }
    if let Some(keys) = property["x-kubernetes-list-map-keys"].as_array() {
        limits.push(format!("Each `{}` once", plain(&keys[0])));
    }
    limits
}

fn rules(schema: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array();
    rules.into_iter().flatten().map(|rule| capitalised(&plain(&rule["message"]))).collect()
}

fn capitalised(text: &str) -> String {
    let mut characters = text.chars();
    characters.next().map_or_else(String::new, |first| first.to_uppercase().chain(characters).collect())
}

fn strings(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

fn line(value: &Value) -> String {
    value.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
