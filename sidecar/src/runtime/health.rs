//! What /live and /ready tell: written by the control loop, read by the admin endpoints.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{self, Instant},
};

/// A control loop that has not come round for this long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(30);

/// Where the sidecar is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Not started, and what it waits for.
    Starting(Vec<String>),
    Started,
    Draining,
}

/// Shared between the control loop and the admin endpoints.
#[derive(Debug)]
pub struct Health {
    status: watch::Sender<Status>,
    origin: Instant,
    /// Milliseconds from `origin` to the last turn of the control loop.
    last_beat: AtomicU64,
}

impl Health {
    /// How often the control loop says that it is there.
    pub const BEAT: Duration = Duration::from_secs(1);

    pub fn new() -> Self {
        let waiting = vec!["no configuration has been read yet".to_owned()];
        Self {
            status: watch::Sender::new(Status::Starting(waiting)),
            origin: Instant::now(),
            last_beat: AtomicU64::new(0),
        }
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    pub fn is_started(&self) -> bool {
        *self.status.borrow() == Status::Started
    }

    pub fn set(&self, status: Status) {
        self.status.send_replace(status);
    }

    pub fn beat(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_beat.store(now, Ordering::Relaxed);
    }

    /// Whether the control loop comes round.
    pub fn is_live(&self) -> bool {
        let last = self.origin + Duration::from_millis(self.last_beat.load(Ordering::Relaxed));
        last.elapsed() < STUCK_AFTER
    }

    /// Beats while `work` goes on.
    pub async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut beats = time::interval(Self::BEAT);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = beats.tick() => self.beat(),
            }
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stuck_control_loop_is_not_live() {
        let health = Health::new();
        assert!(health.is_live());
        health.beating(time::sleep(STUCK_AFTER * 2)).await;
        assert!(health.is_live());
        time::advance(STUCK_AFTER).await;
        assert!(!health.is_live());
    }
}
