//! How many descriptors this process may open: as many as the kernel lets it, and connections stop short of that.

use std::{fs, sync::Arc};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const UNKNOWN: usize = 1024;
const MOST: usize = 65_536;

/// What is asked for at most: more would never be used.
const WANTED: u64 = MOST as u64 * 8 / 3 + 1;

/// Raises the soft limit towards the hard one: container runtimes leave it at 1024, for programs that use select().
pub fn raise() {
    match rlimit::increase_nofile_limit(WANTED) {
        Ok(limit) => tracing::debug!(limit, "descriptors that may be open"),
        Err(error) => tracing::warn!(%error, "the limit of open descriptors stays as it is"),
    }
}

/// Connections that all listeners together may hold at once: each may need a second descriptor towards a backend, and a quarter of
/// the process's limit stays for UDP sessions, discovery, checks and logs.
pub(super) fn max_connections() -> usize {
    (limit() * 3 / 8).clamp(16, MOST)
}

/// Descriptors that UDP sessions may hold, those of all listeners together: an eighth of the process's limit, so that a flood of
/// forged sources leaves the others to connections.
#[derive(Debug, Clone)]
pub struct Descriptors(Arc<Semaphore>);

/// One of them, until it is dropped.
#[derive(Debug)]
pub struct Descriptor {
    _permit: OwnedSemaphorePermit,
}

impl Descriptors {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new((limit() / 8).clamp(16, MOST))))
    }

    /// None when all are in use.
    pub fn take(&self) -> Option<Descriptor> {
        Arc::clone(&self.0).try_acquire_owned().ok().map(|permit| Descriptor { _permit: permit })
    }
}

/// Descriptors that the process may open.
fn limit() -> usize {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    descriptors(&text).unwrap_or(UNKNOWN)
}

/// The soft limit in the text of `/proc/self/limits`; `unlimited` is as good as unknown, but never less.
fn descriptors(text: &str) -> Option<usize> {
    text.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units     \n\
                    Max open files            20000                1048576              files     \n";
        assert_eq!(descriptors(text), Some(20_000));
        assert_eq!(descriptors(""), None);
    }

    #[test]
    fn the_soft_limit_is_raised_to_what_the_hard_one_allows() {
        raise();
        let (soft, hard) = rlimit::Resource::NOFILE.get().unwrap();
        assert!(soft >= hard.min(WANTED), "{soft} of {hard}");
    }

    #[test]
    fn some_connections_are_always_allowed() {
        assert!((16..=MOST).contains(&max_connections()));
    }

    #[test]
    fn descriptors_of_sessions_are_bounded_and_come_back() {
        let descriptors = Descriptors::new();
        let taken: Vec<_> = std::iter::from_fn(|| descriptors.take()).collect();
        assert!((16..=MOST).contains(&taken.len()));
        drop(taken);
        assert!(descriptors.take().is_some());
    }
}
