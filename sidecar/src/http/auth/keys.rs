//! Keys of clients: a file of names and keys -> digests, which are held, and read again when the file is replaced.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::time::{MissedTickBehavior, interval};

/// How soon a replaced file is noticed.
const POLL: Duration = Duration::from_secs(1);

/// Longest file, and most keys in it: each request is compared with all.
const MAX_FILE: u64 = 1 << 20;
const MAX_KEYS: usize = 1024;

/// A key that is shorter could be guessed.
const SHORTEST: usize = 16;

/// Why a file of keys cannot be used. Never tells a key.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    #[error("{path} cannot be read ({source}); correct the path, or the rights of the file")]
    Unreadable { path: String, source: io::Error },
    #[error("{path} has more than {MAX_FILE} bytes or {MAX_KEYS} keys; split it among listeners")]
    TooLarge { path: String },
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
#[derive(Debug)]
pub(super) struct KeyFile {
    path: String,
    current: ArcSwap<Keys>,
    /// What was read last, good or bad, so that the same is told once.
    seen: Mutex<Option<[u8; 32]>>,
}

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
        let bytes = read(path)?;
        let keys = Keys::parse(path, &bytes)?;
        let seen = Mutex::new(Some(digest(&bytes)));
        let file = Arc::new(KeyFile { path: path.to_owned(), current: ArcSwap::from_pointee(keys), seen });
        files.retain(|_, file| file.strong_count() > 0);
        files.insert(path.to_owned(), Arc::downgrade(&file));
        Ok(file)
    }

    /// Says what is wrong with a file.
    pub fn check(path: &str) -> Result<(), KeysError> {
        Keys::parse(path, &read(path)?).map(drop)
    }

    /// Takes over files as they are replaced, until it is dropped.
    pub async fn follow(self) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.refresh();
        }
    }

    /// Looks at all files now.
    pub fn refresh(&self) {
        let files: Vec<_> = self.files().values().filter_map(Weak::upgrade).collect();
        files.iter().for_each(|file| file.refresh());
    }

    fn files(&self) -> MutexGuard<'_, HashMap<String, Weak<KeyFile>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyFile {
    pub(super) fn current(&self) -> Guard<Arc<Keys>> {
        self.current.load()
    }

    fn refresh(&self) {
        let read = read(&self.path);
        let found = read.as_ref().ok().map(|bytes| digest(bytes));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if *seen == found {
            return;
        }
        *seen = found;
        match read.and_then(|bytes| Keys::parse(&self.path, &bytes)) {
            Ok(keys) => {
                tracing::info!(file = self.path, keys = keys.0.len(), "new API keys are in use");
                self.current.store(Arc::new(keys));
            }
            Err(error) => tracing::error!(%error, "new API keys cannot be used, those in use are kept"),
        }
    }
}

impl Keys {
    pub(super) fn parse(path: &str, bytes: &[u8]) -> Result<Self, KeysError> {
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
                return Err(KeysError::TooLarge { path: path() });
            }
            keys.push((name.to_owned(), digest(key.as_bytes())));
        }
        if keys.is_empty() { Err(KeysError::Empty { path: path() }) } else { Ok(Self(keys)) }
    }

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

fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

fn read(path: &str) -> Result<Vec<u8>, KeysError> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(KeysError::Unreadable { path: path.to_owned(), source }),
        Ok(length) if length as u64 > MAX_FILE => Err(KeysError::TooLarge { path: path.to_owned() }),
        Ok(_) => Ok(bytes),
    }
}

#[cfg(test)]
mod tests {
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
        assert!(matches!(KeyFiles::check("/nowhere"), Err(KeysError::Unreadable { .. })));
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
