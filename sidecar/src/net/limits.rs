//! How many descriptors this process may open, so that connections stop short of it.

use std::fs;

const UNKNOWN: usize = 1024;
const MOST: usize = 65_536;

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
    fn some_connections_are_always_allowed() {
        assert!((16..=MOST).contains(&max_connections()));
    }
}
