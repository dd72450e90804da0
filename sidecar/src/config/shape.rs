//! Compares a value with the schema of SidecarConfig, and goes on after an error, so that all are found.
//!
//! It knows the keywords that the schema uses and no others; a test fails when the schema starts to use another. Texts
//! are judged by the parsers of `crds::units` rather than by their patterns, since those name the remedy.

use std::{str::FromStr, sync::LazyLock};

use crds::{
    config::{HEADER_PATTERN, HOST_PATTERN, SERVER_NAME_PATTERN},
    units::{
        AddressPattern, ByteSize, DnsName, Duration, HexBytes, HttpUrl, ListenAddress, ServerNamePattern,
        StatusRange,
    },
};
use serde_json::{Map, Value};

use super::Problem;

/// Longest list of one file's problems: enough to mend it, too short to flood a log.
const MAX_PROBLEMS: usize = 100;

/// A value that is written with quotes or without, as Kubernetes calls it.
const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// What differs from the schema.
#[derive(Debug, Default)]
pub(super) struct Shape {
    pub(super) problems: Vec<Problem>,
    /// Fields that the schema does not have.
    pub(super) unknown: Vec<Problem>,
}

/// A value that is being compared.
struct Comparison<'a> {
    root: &'a Value,
    found: Shape,
}

impl Shape {
    pub(super) fn of(value: &Value) -> Self {
        // Made anew for each file: it takes a millisecond, and memory that is not to be held while there is no other file.
        let root = crds::generate::config_schema();
        let mut comparison = Comparison { root: &root, found: Self::default() };
        comparison.compare(&root, value, "");
        comparison.found
    }
}

impl Comparison<'_> {
    fn compare(&mut self, schema: &Value, value: &Value, path: &str) {
        let Some(schema) = resolve(self.root, schema, value) else { return };
        let types = types(schema);
        if !types.is_empty() && !types.iter().any(|expected| is(expected, value)) {
            self.problem(path, format!("this is {}", kind(value)), wanted(&types));
            return;
        }
        match value {
            Value::Object(object) => self.compare_object(schema, object, path),
            Value::Array(items) => self.compare_items(schema, items, path),
            Value::String(text) => self.compare_text(schema, text, path),
            Value::Number(number) => self.compare_number(schema, number, path),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn compare_object(&mut self, schema: &Value, object: &Map<String, Value>, path: &str) {
        let none = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
        for (key, value) in object {
            let path = join(path, key);
            match properties.get(key) {
                Some(schema) => self.compare(schema, value, &path),
                None if self.found.unknown.len() < MAX_PROBLEMS => {
                    let known = properties.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                    self.found.unknown.push(Problem::at(
                        path,
                        "this field is unknown and ignored",
                        format!("remove it, or correct its name; known here are {known}"),
                    ));
                }
                None => {}
            }
        }
        let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
        for name in required.filter_map(Value::as_str).filter(|name| !object.contains_key(*name)) {
            let meaning = properties.get(name).and_then(|schema| schema.get("description"));
            let meaning = meaning.and_then(Value::as_str).and_then(|text| text.split(['.', '\n']).next());
            let meaning = meaning.map(|text| format!(" ({text})")).unwrap_or_default();
            self.problem(&join(path, name), "it is missing".to_owned(), format!("add {name}{meaning}"));
        }
    }

    fn compare_items(&mut self, schema: &Value, items: &[Value], path: &str) {
        let (least, most) = (limit(schema, "minItems"), limit(schema, "maxItems"));
        if least.is_some_and(|least| items.len() < least) {
            self.problem(path, "the list is empty".to_owned(), "add an entry".to_owned());
        }
        if let Some(most) = most.filter(|most| items.len() > *most) {
            let message = format!("the list has {} entries", items.len());
            self.problem(path, message, format!("at most {most} are possible"));
        }
        if let Some(schema) = schema.get("items") {
            for (index, item) in items.iter().enumerate() {
                self.compare(schema, item, &format!("{path}[{index}]"));
            }
        }
    }

    fn compare_text(&mut self, schema: &Value, text: &str, path: &str) {
        let choices = choices(schema);
        if !choices.is_empty() && !choices.contains(&text) {
            let choices = choices.join(", ");
            return self.problem(
                path,
                format!("{text:?} is not possible here"),
                format!("write one of {choices}"),
            );
        }
        let length = text.chars().count();
        if limit(schema, "minLength").is_some_and(|least| length < least) {
            return self.problem(path, "the text is empty".to_owned(), "write something".to_owned());
        }
        if let Some(most) = limit(schema, "maxLength").filter(|most| length > *most) {
            let message = format!("the text has {length} characters");
            return self.problem(path, message, format!("at most {most} are possible"));
        }
        if let Some(Err((message, remedy))) = parser(schema).map(|parse| parse(text)) {
            self.problem(path, message, remedy);
        }
    }

    fn compare_number(&mut self, schema: &Value, number: &serde_json::Number, path: &str) {
        let bound = |keyword| schema.get(keyword).and_then(Value::as_f64);
        let (least, most) = (bound("minimum"), bound("maximum"));
        let Some(value) = number.as_f64() else { return };
        if least.is_some_and(|least| value < least) || most.is_some_and(|most| value > most) {
            let remedy = match (least, most) {
                (Some(least), Some(most)) => format!("write a number from {least} to {most}"),
                (Some(least), None) => format!("write a number of at least {least}"),
                (None, most) => format!("write a number of at most {}", most.unwrap_or_default()),
            };
            self.problem(path, format!("{number} is out of range"), remedy);
        }
    }

    fn problem(&mut self, path: &str, message: String, remedy: String) {
        if self.found.problems.len() < MAX_PROBLEMS {
            self.found.problems.push(Problem::at(path, message, remedy));
        }
    }
}

/// Follows `$ref`, and `anyOf` to the branch that is not null; `None` when the value is null and may be.
fn resolve<'a>(root: &'a Value, schema: &'a Value, value: &Value) -> Option<&'a Value> {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        return resolve(root, root.pointer(name.strip_prefix('#')?)?, value);
    }
    let Some(branches) = schema.get("anyOf").and_then(Value::as_array) else { return Some(schema) };
    if schema.get(INT_OR_STRING).is_some() {
        return Some(schema);
    }
    let null = |branch: &&Value| branch.get("type").is_some_and(|kind| kind == "null");
    if value.is_null() && branches.iter().any(|branch| null(&branch)) {
        return None;
    }
    resolve(root, branches.iter().find(|branch| !null(branch))?, value)
}

fn types(schema: &Value) -> Vec<&str> {
    if schema.get(INT_OR_STRING).is_some() {
        return vec!["integer", "string"];
    }
    match schema.get("type") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn is(expected: &str, value: &Value) -> bool {
    match value {
        Value::Null => expected == "null",
        Value::Bool(_) => expected == "boolean",
        Value::Number(number) => expected == "number" || expected == "integer" && !number.is_f64(),
        Value::String(_) => expected == "string",
        Value::Array(_) => expected == "array",
        Value::Object(_) => expected == "object",
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "empty",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a mapping",
    }
}

fn wanted(types: &[&str]) -> String {
    match types.first().copied().unwrap_or_default() {
        "boolean" => "write true or false".to_owned(),
        "integer" => "write a whole number, without quotes".to_owned(),
        "number" => "write a number, without quotes".to_owned(),
        "string" => "write a text".to_owned(),
        "array" => "write a list: each entry on a line of its own, after a dash".to_owned(),
        _ => "write a mapping of field names and values".to_owned(),
    }
}

/// Texts of an enum, in either of the ways in which `schemars` writes them.
fn choices(schema: &Value) -> Vec<&str> {
    let listed = schema.get("enum").and_then(Value::as_array).into_iter().flatten();
    let alternatives = schema.get("oneOf").and_then(Value::as_array).into_iter().flatten();
    let described = alternatives.flat_map(|branch| {
        let listed = branch.get("enum").and_then(Value::as_array).into_iter().flatten();
        listed.chain(branch.get("const"))
    });
    listed.chain(described).filter_map(Value::as_str).collect()
}

fn limit(schema: &Value, keyword: &str) -> Option<usize> {
    schema.get(keyword)?.as_u64().and_then(|limit| usize::try_from(limit).ok())
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

type Parser = fn(&str) -> Result<(), (String, String)>;

/// Who judges a text of this schema, by its pattern.
fn parser(schema: &Value) -> Option<Parser> {
    static BY_PATTERN: LazyLock<Vec<(Option<String>, Parser)>> = LazyLock::new(|| {
        vec![
            (pattern_of::<AddressPattern>(), unit::<AddressPattern>),
            (pattern_of::<ByteSize>(), unit::<ByteSize>),
            (pattern_of::<Duration>(), unit::<Duration>),
            (pattern_of::<DnsName>(), unit::<DnsName>),
            (pattern_of::<HexBytes>(), unit::<HexBytes>),
            (pattern_of::<HttpUrl>(), unit::<HttpUrl>),
            (pattern_of::<ListenAddress>(), unit::<ListenAddress>),
            (pattern_of::<ServerNamePattern>(), unit::<ServerNamePattern>),
            (pattern_of::<StatusRange>(), unit::<StatusRange>),
            (Some("^/[!-~]*$".to_owned()), request_path),
            (Some(HEADER_PATTERN.to_owned()), header_name),
            (Some(HOST_PATTERN.to_owned()), host_header),
            (Some(SERVER_NAME_PATTERN.to_owned()), server_name),
        ]
    });
    let pattern = schema.get("pattern")?.as_str();
    BY_PATTERN.iter().find(|(known, _)| known.as_deref() == pattern).map(|(_, parser)| *parser)
}

fn pattern_of<T: schemars::JsonSchema>() -> Option<String> {
    let schema = schemars::schema_for!(T);
    schema.get("pattern").and_then(Value::as_str).map(str::to_owned)
}

/// The messages of `crds::units` say what is wrong, then `; ` or `: `, then the remedy.
fn unit<T: FromStr<Err = crds::units::UnitError>>(text: &str) -> Result<(), (String, String)> {
    text.parse::<T>().map(drop).map_err(|error| {
        let message = error.to_string();
        match message.rsplit_once("; ") {
            Some((message, remedy)) => (message.to_owned(), remedy.to_owned()),
            None => (message, "correct it".to_owned()),
        }
    })
}

fn request_path(text: &str) -> Result<(), (String, String)> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(());
    }
    let message = format!("{text:?} is not the path of a request");
    Err((message, "write it with a leading slash and without spaces, as in /health/ready".to_owned()))
}

fn header_name(text: &str) -> Result<(), (String, String)> {
    http::HeaderName::from_bytes(text.as_bytes()).map(drop).map_err(|_| {
        (format!("{text:?} is not the name of a header"), "write it without colon, as in X-Tenant".to_owned())
    })
}

fn host_header(text: &str) -> Result<(), (String, String)> {
    text.parse::<http::uri::Authority>()
        .ok()
        .filter(|host| !host.as_str().contains('@'))
        .map(drop)
        .ok_or_else(|| {
            let message = format!("{text:?} is not a host");
            (message, "write a name or address, with a port or without, as in s3.example.com:9000".to_owned())
        })
}

fn server_name(text: &str) -> Result<(), (String, String)> {
    let odd = text.bytes().any(|byte| byte.is_ascii_control());
    let problem = || (format!("{text:?} is not a name"), "leave out control characters".to_owned());
    if odd { Err(problem()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 21] = [
        "$defs",
        "$ref",
        "$schema",
        "anyOf",
        "const",
        "default",
        "description",
        "enum",
        "format",
        "items",
        "maxItems",
        "maxLength",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "oneOf",
        "pattern",
        "properties",
        "required",
        "type",
    ];

    /// Calls `visit` with each schema inside of `schema`.
    fn each(schema: &Value, visit: &mut impl FnMut(&Map<String, Value>)) {
        let Some(object) = schema.as_object() else { return };
        visit(object);
        for (keyword, inner) in object {
            match (keyword.as_str(), inner) {
                ("properties" | "$defs", Value::Object(named)) => {
                    named.values().for_each(|schema| each(schema, visit));
                }
                ("anyOf" | "oneOf", Value::Array(list)) => list.iter().for_each(|schema| each(schema, visit)),
                ("items", schema) => each(schema, visit),
                _ => {}
            }
        }
    }

    #[test]
    fn every_keyword_of_the_schema_is_understood() {
        each(&crds::generate::config_schema(), &mut |schema| {
            for keyword in schema.keys().filter(|keyword| !keyword.starts_with("x-") && *keyword != "title") {
                assert!(KNOWN.contains(&keyword.as_str()), "{keyword} in {schema:?}");
            }
        });
    }

    #[test]
    fn every_pattern_of_the_schema_has_a_parser_that_names_the_remedy() {
        each(&crds::generate::config_schema(), &mut |schema| {
            if schema.contains_key("pattern") {
                let schema = Value::Object(schema.clone());
                assert!(parser(&schema).is_some(), "{schema}");
            }
        });
    }
}
