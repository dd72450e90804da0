//! Manifests: text -> documents -> the pods and pod templates in them. A document that nobody changes is printed as it
//! was read, with its comments.

use serde::Deserialize;
use serde_json::Value;

/// Why a text is not a manifest. Its author can fix it.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    #[error("document {number} is not YAML: {source}")]
    Yaml { number: usize, source: serde_yaml::Error },
    #[error("document {number} is not JSON: {source}")]
    Json { number: usize, source: serde_json::Error },
}

/// One document of a manifest.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) text: String,
    pub(super) value: Value,
}

/// The documents of a YAML stream, or of JSON texts one after the other. Empty ones are left out.
pub(super) fn parse(text: &str) -> Result<Vec<Document>, DocumentError> {
    if text.trim_start().starts_with('{') {
        return parse_json(text);
    }
    let mut documents = Vec::new();
    for (index, text) in split(text).into_iter().enumerate() {
        let fail = |source| DocumentError::Yaml { number: index + 1, source };
        let mut value =
            serde_yaml::Value::deserialize(serde_yaml::Deserializer::from_str(&text)).map_err(fail)?;
        value.apply_merge().map_err(fail)?;
        let value: Value = serde_yaml::from_value(value).map_err(fail)?;
        if !value.is_null() {
            documents.push(Document { text, value });
        }
    }
    Ok(documents)
}

fn parse_json(text: &str) -> Result<Vec<Document>, DocumentError> {
    let mut documents = Vec::new();
    let mut start = 0;
    let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    while let Some(value) = stream.next() {
        let value = value.map_err(|source| DocumentError::Json { number: documents.len() + 1, source })?;
        let end = stream.byte_offset();
        documents.push(Document { text: format!("{}\n", text[start..end].trim()), value });
        start = end;
    }
    Ok(documents)
}

/// Splits at the lines that YAML separates documents with: nothing else can start with `---` in the first column.
fn split(text: &str) -> Vec<String> {
    let mut documents = vec![String::new()];
    for line in text.split_inclusive('\n') {
        let marker = line
            .strip_prefix("---")
            .filter(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        match (marker, documents.last_mut()) {
            (Some(rest), _) => documents.push(rest.trim_start().to_owned()),
            (None, Some(document)) => document.push_str(line),
            (None, None) => {}
        }
    }
    documents
}

/// What a message calls the document.
pub(super) fn title(value: &Value) -> String {
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    let kind = text(value.get("kind")).unwrap_or_else(|| "document".to_owned());
    let metadata = |key: &str| text(value.get("metadata").and_then(|metadata| metadata.get(key)));
    match metadata("name").or_else(|| metadata("generateName")) {
        Some(name) => format!("{kind} {name}"),
        None => format!("{kind} without a name"),
    }
}

/// JSON pointers to the pods and pod templates of a document.
pub(super) fn pods(value: &Value) -> Vec<String> {
    match value.get("kind").and_then(Value::as_str) {
        Some("Pod") => vec![String::new()],
        Some("PodTemplate") => vec!["/template".to_owned()],
        Some("CronJob") => vec!["/spec/jobTemplate/spec/template".to_owned()],
        _ => ["/spec/template"]
            .into_iter()
            .filter(|path| is_template(value, path))
            .map(str::to_owned)
            .collect(),
    }
}

/// JSON pointers to the objects that a document holds: the items of a List, else the document itself.
pub(super) fn objects(value: &Value) -> Vec<String> {
    let is_list = value.get("kind").and_then(Value::as_str).is_some_and(|kind| kind.ends_with("List"));
    match value.get("items").and_then(Value::as_array) {
        Some(items) if is_list => (0..items.len()).map(|index| format!("/items/{index}")).collect(),
        _ => vec![String::new()],
    }
}

/// Whether there is a pod template, whatever the kind around it: an object with containers in its spec.
fn is_template(value: &Value, path: &str) -> bool {
    value
        .pointer(path)
        .and_then(|template| template.get("spec")?.get("containers"))
        .is_some_and(Value::is_array)
}
