//! What a rule calls a client, or what it asks of a claim: a text, or the beginning of one.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Name {
    Whole(String),
    Beginning(String),
}

impl Name {
    /// A `*` at the end stands for any rest.
    pub(super) fn of(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::Beginning(beginning.to_owned()),
            None => Self::Whole(text.to_owned()),
        }
    }

    pub(super) fn matches(&self, name: &str) -> bool {
        match self {
            Self::Whole(whole) => name == whole,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }
}
