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

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use bytes::Bytes;
    use h2::{client, server};
    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_answers_stays_and_who_does_not_is_given_up() {
        for (answers, expected) in [(true, None), (false, Some(EVERY + LIMIT))] {
            let (near, far) = tokio::io::duplex(1 << 16);
            let (client, server) = tokio::join!(client::handshake(far), server::handshake(near));
            let (_sender, client) = client.unwrap();
            let mut server: server::Connection<_, Bytes> = server.unwrap();
            let mut pulse = Pulse::new(server.ping_pong().unwrap());
            let start = Instant::now();
            let watched = poll_fn(|context| {
                assert!(server.poll_accept(context).is_pending());
                pulse.poll(context)
            });
            let driven = async {
                if answers {
                    client.await.unwrap();
                } else {
                    let _held = client;
                    pending::<()>().await;
                }
            };
            let given_up = tokio::select! {
                () = watched => Some(start.elapsed()),
                () = driven => None,
                () = sleep(EVERY * 20) => None,
            };
            assert_eq!(given_up, expected);
        }
    }
}
