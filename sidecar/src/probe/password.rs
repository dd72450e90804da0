//! A password in a file, read anew for each check, so that a replaced one counts with the next. It is never shown.

use std::fmt;

use crate::followed::{self, Unread};

/// Bytes of a file, at most.
const MOST: u64 = 4 << 10;

/// What a server knows the sidecar by.
pub struct Password(Vec<u8>);

/// Why a file has no password. Never tells what is in it.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error(transparent)]
    Unread(#[from] Unread),
    #[error("{path} has no password; write it on the first line")]
    Empty { path: String },
    #[error("{path} has more than one line; write the password alone")]
    Lines { path: String },
}

impl Password {
    /// A line break at the end of the file is not part of it.
    pub fn read(path: &str) -> Result<Self, PasswordError> {
        let mut bytes = followed::read(path, MOST)?;
        if bytes.ends_with(b"\n") {
            bytes.pop();
        }
        if bytes.ends_with(b"\r") {
            bytes.pop();
        }
        if bytes.is_empty() {
            return Err(PasswordError::Empty { path: path.to_owned() });
        }
        // No server knows one with a line break or a null byte in it.
        if bytes.iter().any(|byte| b"\r\n\0".contains(byte)) {
            return Err(PasswordError::Lines { path: path.to_owned() });
        }
        Ok(Self(bytes))
    }

    /// One that stands in no file.
    #[cfg(any(test, fuzzing))]
    pub(super) fn of(text: &str) -> Self {
        Self(text.as_bytes().to_vec())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Password(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_one_line_without_its_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for (text, password) in
            [("secret", Ok("secret")), ("secret\n", Ok("secret")), (" se cret \r\n", Ok(" se cret "))]
                .into_iter()
                .chain(["", "\n", "\r\n"].map(|text| (text, Err("no password"))))
                .chain(["a\nb", "a\n\n", "a\0b"].map(|text| (text, Err("more than one line"))))
        {
            std::fs::write(path, text).unwrap();
            match (Password::read(path), password) {
                (Ok(read), Ok(expected)) => assert_eq!(read.as_bytes(), expected.as_bytes()),
                (Err(error), Err(expected)) => {
                    assert!(
                        error.to_string().contains(expected) && error.to_string().contains("; "),
                        "{error}"
                    );
                }
                (read, expected) => panic!("{text:?}: {read:?}, not {expected:?}"),
            }
        }
        assert!(matches!(Password::read("/nowhere"), Err(PasswordError::Unread(_))));
        assert_eq!(format!("{:?}", Password::of("secret")), "Password(***)");
    }
}
