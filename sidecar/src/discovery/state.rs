//! The last good configuration and backend sets, kept over a restart: written whole to a new file, then renamed.
//!
//! Nothing depends on it: what cannot be written is logged once, and what cannot be read counts as absent.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use crds::units::Address;
use serde::{Deserialize, Serialize};

use crate::balance::Endpoint;

/// Largest file that is written or read; the volume in a pod has 16 MiB.
const MAX_FILE: u64 = 1024 * 1024 + 64 * 1024;
/// Sets beyond this number are not kept: 16 listeners of 8 sites rarely name as many sources.
const MAX_SETS: usize = 128;
const CONFIG: &str = "config.yaml";
const SET_PREFIX: &str = "set-";

/// The state directory, or none.
#[derive(Debug, Default)]
pub struct StateDir {
    path: Option<PathBuf>,
    failed: AtomicBool,
}

/// A set as it is kept. The key tells apart what hashes alike.
#[derive(Debug, Serialize, Deserialize)]
struct KeptSet {
    key: String,
    /// Address, and whether it was terminating.
    endpoints: Vec<(Address, bool)>,
}

impl StateDir {
    /// Without a path nothing is kept.
    pub fn new(path: Option<PathBuf>) -> Self {
        Self { path, failed: AtomicBool::new(false) }
    }

    pub fn save_config(&self, bytes: &[u8]) {
        self.save(CONFIG, bytes);
    }

    pub fn load_config(&self) -> Option<Vec<u8>> {
        self.load(CONFIG)
    }

    pub fn save_set(&self, key: &str, endpoints: &[Endpoint]) {
        // Addresses of one server are told apart until the names are known again.
        let endpoints = endpoints
            .iter()
            .flat_map(|endpoint| {
                let others = endpoint.others.iter().flat_map(|others| others.iter());
                std::iter::once(&endpoint.address)
                    .chain(others)
                    .map(|address| (address.clone(), endpoint.terminating))
            })
            .collect();
        if let Ok(bytes) = serde_json::to_vec(&KeptSet { key: key.to_owned(), endpoints }) {
            self.save(&file_name(key), &bytes);
        }
    }

    pub fn load_set(&self, key: &str) -> Option<Vec<Endpoint>> {
        let kept: KeptSet = serde_json::from_slice(&self.load(&file_name(key))?).ok()?;
        let endpoints = kept.endpoints.into_iter();
        (kept.key == key).then(|| {
            endpoints
                .map(|(address, terminating)| Endpoint { terminating, ..Endpoint::at(address) })
                .collect()
        })
    }

    /// Removes the sets that no source of `keys` keeps, and what an interrupted write left behind.
    pub fn prune(&self, keys: &[String]) {
        let Some(path) = &self.path else { return };
        let kept: Vec<String> = keys.iter().take(MAX_SETS).map(|key| file_name(key)).collect();
        let Ok(entries) = fs::read_dir(path) else { return };
        for name in entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()) {
            if name.starts_with(SET_PREFIX) && !kept.contains(&name) {
                self.done(fs::remove_file(path.join(name)));
            }
        }
    }

    fn save(&self, name: &str, bytes: &[u8]) {
        let Some(path) = &self.path else { return };
        if bytes.len() as u64 <= MAX_FILE {
            self.done(replace(path, name, bytes));
        }
    }

    fn load(&self, name: &str) -> Option<Vec<u8>> {
        let path = self.path.as_ref()?.join(name);
        let small = fs::metadata(&path).ok()?.len() <= MAX_FILE;
        if small { fs::read(path).ok() } else { None }
    }

    fn done(&self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failed.store(false, Ordering::Relaxed),
            Err(error) if !self.failed.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, path = ?self.path, "the last good state is not kept: a restart starts from nothing");
            }
            Err(_) => {}
        }
    }
}

fn replace(directory: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let temporary = directory.join(format!("{name}.new"));
    fs::write(&temporary, bytes)?;
    fs::rename(temporary, directory.join(name))
}

/// FNV-1a, so that a later release finds what this one wrote.
fn file_name(key: &str) -> String {
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{SET_PREFIX}{hash:016x}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(directory.path().join("state")));
        let endpoints = vec![
            Endpoint::at("10.0.0.1:80".parse::<Address>().unwrap()),
            Endpoint { terminating: true, ..Endpoint::at("[fd00::1]:80".parse::<Address>().unwrap()) },
        ];
        assert_eq!(state.load_set("a"), None);
        state.save_set("a", &endpoints);
        state.save_set("b", &[]);
        state.save_config(b"http: []");
        assert_eq!(state.load_set("a"), Some(endpoints));
        assert_eq!(state.load_set("b"), Some(vec![]));
        assert_eq!(state.load_config().as_deref(), Some(b"http: []".as_slice()));

        state.prune(&["b".to_owned()]);
        assert_eq!(state.load_set("a"), None);
        assert_eq!(state.load_set("b"), Some(vec![]));
        assert!(state.load_config().is_some());
    }

    #[test]
    fn a_damaged_file_counts_as_absent() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::new(Some(directory.path().to_owned()));
        state.save_set("a", &[]);
        fs::write(directory.path().join(file_name("a")), b"{\"key\":\"a\",\"endpo").unwrap();
        assert_eq!(state.load_set("a"), None);
    }
}
