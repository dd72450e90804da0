//! How long watches pause after they have failed.

use std::time::Duration;

use kube::runtime::{utils::Backoff, watcher::DefaultBackoff};

/// What changes while a watch pauses is seen only after it: a policy that was applied right after an outage of the API server
/// must not wait for the half a minute that the library's own pauses come to.
const LONGEST: Duration = Duration::from_secs(5);

/// The library's pauses, up to a limit of our own.
#[derive(Default)]
pub(crate) struct Pauses(DefaultBackoff);

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next().map(|pause| pause.min(LONGEST))
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.0.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_never_pauses_for_long_however_long_an_outage_is_and_never_gives_up() {
        let pauses: Vec<Duration> = Pauses::default().take(200).collect();
        assert_eq!(pauses.len(), 200);
        assert!(pauses.iter().all(|pause| *pause <= LONGEST), "{pauses:?}");
        assert_eq!(pauses[199], LONGEST, "it does not press the server");
    }
}
