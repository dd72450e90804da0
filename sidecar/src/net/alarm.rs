//! One timer for all the deadlines of a connection. Most deadlines are moved on and never met: moving one later is a store,
//! and the timer is set anew only when it goes off early.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

#[derive(Debug)]
pub struct Alarm {
    timer: Pin<Box<Sleep>>,
    deadline: Instant,
}

impl Alarm {
    pub fn after(limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        Self { timer: Box::pin(sleep_until(deadline)), deadline }
    }

    pub fn set(&mut self, deadline: Instant) {
        self.deadline = deadline;
        if deadline < self.timer.deadline() {
            self.timer.as_mut().reset(deadline);
        }
    }

    pub fn set_after(&mut self, limit: Duration) {
        self.set(Instant::now() + limit);
    }

    /// Ready once the deadline has passed.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_deadline_that_was_set_last() {
        for (first, last) in [(10, 30), (30, 10), (10, 10)] {
            let start = Instant::now();
            let mut alarm = Alarm::after(Duration::from_secs(first));
            alarm.set_after(Duration::from_secs(last));
            poll_fn(|context| alarm.poll(context)).await;
            assert_eq!(start.elapsed().as_secs(), last);
        }
    }
}
