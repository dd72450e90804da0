//! Asks now and then whether the other side still hears: a ping, and its answer within a limit.

use std::{
    task::{Context, Poll, ready},
    time::Duration,
};

use h2::{Ping, PingPong};

use crate::net::Alarm;

const EVERY: Duration = Duration::from_secs(30);
const LIMIT: Duration = Duration::from_secs(20);

pub(super) struct Pulse {
    ping: PingPong,
    alarm: Alarm,
    waiting: bool,
}

impl Pulse {
    pub(super) fn new(ping: PingPong) -> Self {
        Self { ping, alarm: Alarm::after(EVERY), waiting: false }
    }

    /// Ready when there was no answer in time.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.waiting && self.ping.poll_pong(context).is_ready() {
                self.waiting = false;
                self.alarm.set_after(EVERY);
            }
            ready!(self.alarm.poll(context));
            if self.waiting {
                return Poll::Ready(());
            }
            self.waiting = self.ping.send_ping(Ping::opaque()).is_ok();
            self.alarm.set_after(if self.waiting { LIMIT } else { EVERY });
        }
    }
}
