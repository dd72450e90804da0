//! field path -> line. Only made when there is something to report.

use std::collections::HashMap;

use marked_yaml::{LoadError, LoaderOptions, Marker, Node, parse_yaml_with_options};

use super::Problem;

/// Nesting that is followed for lines; deeper fields get the line of what they are in.
const MAX_DEPTH: usize = 32;

/// The lines of a file's fields, by path. Empty for YAML that uses what [`marked_yaml`] cannot follow (anchors).
#[derive(Debug, Default)]
pub(super) struct Lines(HashMap<String, usize>);

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let mut lines = HashMap::new();
        if let Ok(root) = parse_yaml_with_options(0, text, LoaderOptions::default()) {
            collect(&root, &mut String::new(), 0, &mut lines);
        }
        Self(lines)
    }

    /// Gives each problem its line and sorts them by line; what was placed before keeps its line.
    pub(super) fn place(&self, problems: &mut [Problem]) {
        for problem in problems.iter_mut() {
            problem.line = problem.line.or_else(|| self.line(&problem.path));
        }
        problems.sort_by_key(|problem| problem.line);
    }

    /// Line of the field, or of the nearest thing around it that is there.
    fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(&line) = self.0.get(path) {
                return Some(line);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// The first key that stands twice in one mapping, if there is one.
pub(super) fn duplicate_key(text: &str) -> Option<Problem> {
    let options = LoaderOptions::default().error_on_duplicate_keys(true);
    match parse_yaml_with_options(0, text, options) {
        Err(LoadError::DuplicateKey(twice)) => {
            let line = |span: &marked_yaml::Span| span.start().map(Marker::line);
            let key = twice.key.as_str();
            let first = line(twice.prev_key.span()).unwrap_or_default();
            Some(Problem {
                line: line(twice.key.span()),
                path: String::new(),
                message: format!("{key} stands twice in one mapping, first in line {first}"),
                remedy: "remove one of them".to_owned(),
            })
        }
        _ => None,
    }
}

fn collect(node: &Node, path: &mut String, depth: usize, lines: &mut HashMap<String, usize>) {
    if depth > MAX_DEPTH {
        return;
    }
    let length = path.len();
    match node {
        Node::Scalar(_) => {}
        Node::Mapping(mapping) => {
            for (key, value) in mapping.iter() {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key.as_str());
                insert(path, key.span(), lines);
                collect(value, path, depth + 1, lines);
                path.truncate(length);
            }
        }
        Node::Sequence(sequence) => {
            for (index, value) in sequence.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                insert(path, value.span(), lines);
                collect(value, path, depth + 1, lines);
                path.truncate(length);
            }
        }
    }
}

fn insert(path: &str, span: &marked_yaml::Span, lines: &mut HashMap<String, usize>) {
    if let Some(start) = span.start() {
        lines.insert(path.to_owned(), start.line());
    }
}
