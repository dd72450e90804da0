//! Where configuration comes from: (mounted file, API) -> [`Reading`] -> [`choice`].
//!
//! Both sources report what they see and nothing about what it means; a source that sees nothing says so, and never
//! takes away what another one gave.

pub mod api;
pub mod choice;
pub mod file;

use std::hash::{DefaultHasher, Hasher};

/// Who gave a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// The mounted directory, or a file.
    File,
    /// The ConfigMap as the API server has it.
    Api,
    /// What an earlier run of this sidecar kept.
    LastGood,
    /// The command line, which gives one and never another.
    Given,
}

impl Origin {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Api => "API",
            Self::LastGood => "last good",
            Self::Given => "command line",
        }
    }
}

/// What a source sees now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading {
    Found {
        origin: Origin,
        document: Document,
    },
    /// There is nothing to read; the text says what is awaited.
    Missing {
        origin: Origin,
        awaited: String,
    },
}

/// Bytes that should be a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Names the document in messages: a path, or a ConfigMap and its key.
    pub name: String,
    pub bytes: Vec<u8>,
}

impl Document {
    /// Two documents of one fingerprint are the same; it is never kept longer than the process.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        hasher.write(&self.bytes);
        hasher.finish()
    }
}

/// The newest key of a configuration version that this release knows.
pub fn newest_known<'a>(keys: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    keys.into_iter()
        .filter_map(|key| Some((crds::names::config_version(key)?, key)))
        .filter(|(version, _)| *version <= crds::config::VERSION)
        .max()
        .map(|(_, key)| key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_is_known_is_read() {
        for (keys, newest) in [
            (vec!["sidecar.v1.yaml", "sidecar.v2.yaml"], Some("sidecar.v1.yaml")),
            (vec!["sidecar.v0.yaml", "sidecar.v1.yaml"], Some("sidecar.v1.yaml")),
            (vec!["sidecar.v2.yaml", "other.yaml", "..data"], None),
            (vec![], None),
        ] {
            assert_eq!(newest_known(keys), newest);
        }
    }
}
