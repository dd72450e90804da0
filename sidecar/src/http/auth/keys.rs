//! Keys of clients: a file of names and keys -> digests, which are held, and read again when the file is replaced.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use subtle::ConstantTimeEq;

use crate::followed::{self, Content, Followed, Unread, digest};

/// Most keys of one file: each request is compared with all.
const MAX_KEYS: usize = 1024;

/// A key that is shorter could be guessed.
const SHORTEST: usize = 16;

/// Why a file of keys cannot be used. Never tells a key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("{path} has more than {MAX_KEYS} keys; split it among listeners")]
    TooMany { path: String },
    #[error("{path} is not UTF-8; write a name, a space and a key on each line")]
    NotText { path: String },
    #[error("line {line} of {path} is no name and key; write a name, a space and a key")]
    Malformed { path: String, line: usize },
    #[error("the key in line {line} of {path} is too short; write at least {SHORTEST} characters")]
    Short { path: String, line: usize },
    #[error("{path} has no keys, so that nobody could be let in; add a line with a name, a space and a key")]
    Empty { path: String },
}

/// All files of keys in use, each read once however many listeners name it. Clones share.
#[derive(Debug, Clone, Default)]
pub struct KeyFiles(Arc<Mutex<HashMap<String, Weak<KeyFile>>>>);

/// One file, and what it holds now.
pub(super) type KeyFile = Followed<Keys>;

/// The keys of one file.
#[derive(Debug)]
pub(super) struct Keys(Vec<(String, [u8; 32])>);

impl KeyFiles {
    /// The keys of a file; see [`ApiKeys`](crds::config::ApiKeys) for its form.
    pub(super) fn load(&self, path: &str) -> Result<Arc<KeyFile>, KeysError> {
        let mut files = self.files();
        if let Some(file) = files.get(path).and_then(Weak::upgrade) {
            return Ok(file);
        }
        let file = Arc::new(KeyFile::load(path)?);
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(path.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }

    /// Says what is wrong with a file.
    pub fn check(path: &str) -> Result<(), KeysError> {
        followed::check::<Keys>(path)
    }

    /// Takes over files as they are replaced, until it is dropped.
    pub async fn follow(self) {
        followed::follow(|| self.refresh()).await;
    }

    /// Looks at all files now.
    pub fn refresh(&self) {
        let files: Vec<_> = self.files().values().filter_map(Weak::upgrade).collect();
        for file in files {
            match file.refresh() {
                None => {}
                Some(Ok(keys)) => {
                    tracing::info!(file = file.path(), keys = keys.0.len(), "new API keys are in use");
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "new API keys cannot be used, those in use are kept");
                }
            }
        }
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, Weak<KeyFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Content for Keys {
    type Error = KeysError;
    const MOST: u64 = 1 << 20;

    fn parse(path: &str, bytes: &[u8]) -> Result<Self, KeysError> {
        let path = || path.to_owned();
        let text = std::str::from_utf8(bytes).map_err(|_| KeysError::NotText { path: path() })?;
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let number = index + 1;
            let mut words = line.split_ascii_whitespace();
            let (Some(name), Some(key), None) = (words.next(), words.next(), words.next()) else {
                return Err(KeysError::Malformed { path: path(), line: number });
            };
            if key.len() < SHORTEST {
                return Err(KeysError::Short { path: path(), line: number });
            }
            if keys.len() == MAX_KEYS {
                return Err(KeysError::TooMany { path: path() });
            }
            keys.push((name.to_owned(), digest(key.as_bytes())));
        }
        if keys.is_empty() { Err(KeysError::Empty { path: path() }) } else { Ok(Self(keys)) }
    }
}

impl Keys {
    /// The name of the client with this key. Takes the same time for every key.
    pub(super) fn name_of(&self, key: &[u8]) -> Option<&str> {
        let digest = digest(key);
        let mut found = None;
        for (name, known) in &self.0 {
            if bool::from(known.ct_eq(&digest)) {
                found = Some(name.as_str());
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_wrong_file_is_told_with_line_and_remedy_and_without_a_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for (text, expected) in [
            ("", "has no keys"),
            ("# nothing\n", "has no keys"),
            ("spark 0123456789abcdef\nonly-secret-0123456789\n", "line 2 of"),
            ("spark secret-0123456789 more\n", "line 1 of"),
            ("spark short-secret\n", "at least 16 characters"),
            (&"spark 0123456789abcdef\n".repeat(MAX_KEYS + 1), "1024 keys"),
            (&"#".repeat(1 << 21), "bytes"),
        ] {
            fs::write(path, text).unwrap();
            let error = KeyFiles::check(path).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(path), "{error}");
            assert!(error.contains("; ") && !error.contains("secret"), "{error}");
        }
        assert!(matches!(KeyFiles::check("/nowhere"), Err(KeysError::Unread(Unread::Failed { .. }))));
    }

    #[test]
    fn a_replaced_file_counts_when_it_is_good() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let files = KeyFiles::default();
        let known = |loaded: &KeyFile, key: &str| loaded.current().name_of(key.as_bytes()).map(str::to_owned);
        fs::write(file.path(), "spark 0123456789abcdef\n").unwrap();
        let loaded = files.load(file.path().to_str().unwrap()).unwrap();
        assert_eq!(known(&loaded, "0123456789abcdef").as_deref(), Some("spark"));
        for bad in ["", "ci\n"] {
            fs::write(file.path(), bad).unwrap();
            files.refresh();
            assert_eq!(known(&loaded, "0123456789abcdef").as_deref(), Some("spark"), "{bad:?}");
        }
        fs::write(file.path(), "ci fedcba9876543210\n").unwrap();
        files.refresh();
        assert_eq!(known(&loaded, "0123456789abcdef"), None);
        assert_eq!(known(&loaded, "fedcba9876543210").as_deref(), Some("ci"));
    }
}
