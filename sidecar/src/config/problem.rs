//! What is wrong with a configuration, in words that say where and what to do.

use std::fmt;

/// One thing wrong with a configuration file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line of the field, or of what it belongs into when it is missing; `None` where the file has no lines to name.
    pub line: Option<usize>,
    /// As in `http[0].sites[1].backends[0]`; empty for the file as a whole.
    pub path: String,
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Problem {
    /// A problem whose line is found later, by its path.
    pub(super) fn at(path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { line: None, path: path.into(), message: message.into(), remedy: remedy.into() }
    }

    /// The problem as `check` prints it: `file:line: path: message; remedy`.
    pub fn in_file<'a>(&'a self, file: &'a str) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| {
            f.write_str(file)?;
            if let Some(line) = self.line {
                write!(f, ":{line}")?;
            }
            f.write_str(": ")?;
            self.write_text(f)
        })
    }

    fn write_text(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        self.write_text(f)
    }
}

/// A configuration that was refused, with everything that is wrong with it. Whoever wrote the file can fix it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct Rejected {
    /// At least one, in the order of the file.
    pub problems: Vec<Problem>,
    pub warnings: Vec<Problem>,
}
