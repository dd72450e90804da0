//! How long nothing has moved on a connection: after a while its backend's host is to be looked for, and in the end it is closed.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::Instant;

use crate::net::Alarm;

#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    /// When it has lasted too long.
    ends: Instant,
    /// When the connection is no longer a short one, as most are, until that was told.
    settles: Option<Instant>,
    alarm: Alarm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silent {
    /// The connection has lasted for a while, silent or not: told once.
    Settled,
    TooLong,
}

impl Silence {
    /// Too long is `limit`; a connection settles `after` this time.
    pub(super) fn new(limit: Duration, after: Duration) -> Self {
        let now = Instant::now();
        Self { limit, ends: now + limit, settles: Some(now + after), alarm: Alarm::after(limit.min(after)) }
    }

    /// Something has moved.
    pub(super) fn broken(&mut self, now: Instant) {
        self.ends = now + self.limit;
        self.alarm.set(self.settles.map_or(self.ends, |settles| settles.min(self.ends)));
    }

    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Silent> {
        ready!(self.alarm.poll(context));
        if self.settles.take_if(|settles| *settles < self.ends).is_none() {
            return Poll::Ready(Silent::TooLong);
        }
        self.alarm.set(self.ends);
        Poll::Ready(Silent::Settled)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const AFTER: Duration = Duration::from_secs(30);

    async fn next(silence: &mut Silence) -> Silent {
        poll_fn(|context| silence.poll(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_settles_once_and_ends_when_it_was_silent_for_too_long() {
        let start = Instant::now();
        let mut silence = Silence::new(Duration::from_secs(3600), AFTER);
        assert_eq!((next(&mut silence).await, start.elapsed()), (Silent::Settled, AFTER));
        assert_eq!((next(&mut silence).await, start.elapsed().as_secs()), (Silent::TooLong, 3600));
    }

    #[tokio::test(start_paused = true)]
    async fn what_moves_puts_off_the_end_and_nothing_else() {
        let start = Instant::now();
        let mut silence = Silence::new(Duration::from_secs(60), AFTER);
        for second in [1, 20, 29] {
            tokio::time::sleep_until(start + Duration::from_secs(second)).await;
            silence.broken(Instant::now());
        }
        assert_eq!((next(&mut silence).await, start.elapsed()), (Silent::Settled, AFTER));
        assert_eq!((next(&mut silence).await, start.elapsed().as_secs()), (Silent::TooLong, 89));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_may_be_silent_for_a_moment_only_ends_without_settling() {
        let mut silence = Silence::new(Duration::from_secs(5), AFTER);
        assert_eq!(next(&mut silence).await, Silent::TooLong);
    }
}
