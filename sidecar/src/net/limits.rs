//! How many descriptors this process may open: as many as the kernel lets it, and connections stop short of that.

use std::fs;

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
/// the process's limit stays for discovery, checks and logs.
pub(super) fn max_connections() -> usize {
    let text = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    (descriptors(&text).unwrap_or(UNKNOWN) * 3 / 8).clamp(16, MOST)
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
}
