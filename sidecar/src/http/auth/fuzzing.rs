//! What is promised of credentials whatever their bytes are; a broken promise panics.

pub use super::jwt::fuzzing::{key_set, token};
use super::keys::Keys;
use crate::{followed::Content, fuzzing::assert_silent};

/// Each key of a file is known by the name before it, or the file is refused in words that hold nothing of it.
pub fn api_keys(bytes: &[u8]) {
    let keys = match Keys::parse("keys", bytes) {
        Ok(keys) => keys,
        Err(error) => return assert_silent(&error, bytes),
    };
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let known: Vec<Vec<&str>> = lines.map(|line| line.split_ascii_whitespace().collect()).collect();
    for line in &known {
        let name = keys.name_of(line[1].as_bytes());
        assert!(
            known.iter().any(|other| Some(other[0]) == name && other[1] == line[1]),
            "{line:?} is {name:?}"
        );
    }
    for wrong in [&b""[..], b"key", bytes] {
        let own = known.iter().any(|line| line[1].as_bytes() == wrong);
        assert!(own || keys.name_of(wrong).is_none());
    }
}
