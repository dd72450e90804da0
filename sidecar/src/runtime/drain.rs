//! The end: (container mode: send clients from elsewhere away, and serve until the application has gone) -> stop accepting -> finish -> cut off.

use std::time::Duration;

use tokio::time::{self, Instant};

use super::{Mode, listeners::Listeners};
use crate::net::Workers;

/// The application counts as gone when it has had no connection for this long. Until then it may be between two requests,
/// or in a preStop hook that only waits.
const QUIET: Duration = Duration::from_secs(10);
const QUIET_POLL: Duration = Duration::from_millis(100);
/// Threads get this time to end after their listeners have.
const WORKERS_TIMEOUT: Duration = Duration::from_secs(1);

/// Takes at most `timeout`, and what it takes to close what is left then.
pub(super) async fn drain(mut listeners: Listeners, workers: Workers, mode: Mode, timeout: Duration) {
    let deadline = Instant::now() + timeout;
    if mode == Mode::Container {
        listeners.leave();
        let quiet = time::timeout_at(deadline, until_quiet(|| listeners.connections())).await;
        tracing::info!(
            connections = listeners.connections(),
            "{}",
            if quiet.is_ok() { "the application has gone" } else { "the application still has connections" }
        );
    }
    listeners.drain(deadline.saturating_duration_since(Instant::now())).await;
    workers.shutdown(WORKERS_TIMEOUT).await;
}

/// Waits until there was no connection for a while.
async fn until_quiet(connections: impl Fn() -> usize) {
    let mut quiet_since = None;
    loop {
        if connections() > 0 {
            quiet_since = None;
        } else if quiet_since.get_or_insert_with(Instant::now).elapsed() >= QUIET {
            return;
        }
        time::sleep(QUIET_POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_application_is_gone_after_a_quiet_while_and_not_before() {
        let connections = Cell::new(1);
        let start = Instant::now();
        let application = async {
            time::sleep(Duration::from_secs(5)).await;
            connections.set(0);
            time::sleep(QUIET / 2).await;
            connections.set(1);
            time::sleep(QUIET).await;
            connections.set(0);
        };
        tokio::join!(application, until_quiet(|| connections.get()));
        let gone = Duration::from_secs(5) + QUIET / 2 + QUIET;
        assert!(
            start.elapsed() >= gone + QUIET && start.elapsed() < gone + QUIET * 2,
            "{:?}",
            start.elapsed()
        );
    }
}
