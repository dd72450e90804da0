//! An account without rights, since PostgreSQL refuses to run as root.

use std::{
    fs::Permissions,
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::Path,
    process::Command,
};

use anyhow::Result;
use tempfile::TempDir;

const NOBODY: u32 = 65534;

/// Has setpriv, whose arguments these are, give up root where there is any. All others run as they are.
pub(super) fn without_rights(setpriv: &mut Command) -> &mut Command {
    if is_root() {
        setpriv.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
    }
    setpriv
}

/// A folder of that account's.
pub(super) fn folder() -> Result<TempDir> {
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o700)).tempdir()?;
    give(folder.path())?;
    Ok(folder)
}

/// Makes a file or a folder that account's.
pub(super) fn give(path: &Path) -> Result<()> {
    if is_root() {
        chown(path, Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

pub(super) fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0)
}
