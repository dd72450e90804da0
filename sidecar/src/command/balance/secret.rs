//! A secret of the command line as a file that nobody else can open by name: what reads secrets from files reads it too.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsRawFd,
};

use rustix::fs::{MemfdFlags, memfd_create};

/// In memory alone, for as long as this lives.
pub(super) struct SecretFile(File);

impl SecretFile {
    pub(super) fn new(secret: &str) -> io::Result<Self> {
        let mut file = File::from(memfd_create("secret", MemfdFlags::CLOEXEC)?);
        file.write_all(secret.as_bytes())?;
        Ok(Self(file))
    }

    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_from_its_beginning_again_and_again() {
        let file = SecretFile::new("password").unwrap();
        for _ in 0..2 {
            assert_eq!(std::fs::read_to_string(file.path()).unwrap(), "password");
        }
    }
}
