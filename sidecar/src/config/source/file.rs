//! The mounted directory, or a single file: read each second, reported when its content differs.
//!
//! kubelet swaps a symlink to a whole new directory, so that reading by path sees one version or the other. Content is
//! compared rather than times, since it is small and what matters.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    time::{self, MissedTickBehavior},
};

use super::{Document, Origin, Reading, newest_known};
use crate::{config::MAX_SIZE, followed::read_to};

const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Reports what is read, at first and after each change, until the receiver is gone.
pub async fn follow(path: PathBuf, readings: mpsc::Sender<Reading>) {
    let mut last = None;
    let mut ticks = time::interval(POLL_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = readings.closed() => return,
        }
        let reading = read(&path);
        let seen = match &reading {
            Reading::Found { document, .. } => (true, document.fingerprint()),
            Reading::Missing { .. } => (false, 0),
        };
        if last != Some(seen) {
            last = Some(seen);
            if readings.send(reading).await.is_err() {
                return;
            }
        }
    }
}

/// Reads the file, or the newest known version in the directory.
pub fn read(path: &Path) -> Reading {
    let missing = |awaited: String| Reading::Missing { origin: Origin::File, awaited };
    match locate(path) {
        // One byte more than is possible tells the checks that the file is too large.
        Ok(Some(file)) => match read_to(&file, MAX_SIZE as u64) {
            Ok(bytes) => {
                let document = Document { name: file.display().to_string(), bytes };
                Reading::Found { origin: Origin::File, document }
            }
            Err(error) => missing(format!("{}: {error}", file.display())),
        },
        Ok(None) => {
            let key = crds::names::config_key(crds::config::VERSION);
            missing(format!("{} in {}, which is the policy's ConfigMap", key, path.display()))
        }
        Err(error) => missing(format!("{}: {error}", path.display())),
    }
}

fn locate(path: &Path) -> io::Result<Option<PathBuf>> {
    if !fs::metadata(path)?.is_dir() {
        return Ok(Some(path.to_owned()));
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.extend(entry?.file_name().into_string().ok());
    }
    Ok(newest_known(names.iter().map(String::as_str)).map(|name| path.join(name)))
}
