//! Has the kernel notice hosts that have gone without a word. What is set at a listening socket, each connection has that is
//! accepted there, without a call for it.

use std::{io, os::fd::AsFd, time::Duration};

use socket2::{SockRef, TcpKeepalive};

/// When the kernel gives up a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeadHosts {
    /// Silence before it is asked whether it is there. This and the interval are taken as whole seconds.
    pub after: Duration,
    /// Time from one question without an answer to the next.
    pub interval: Duration,
    /// Questions without an answer, up to 127.
    pub probes: u32,
    /// When something that was sent to it has not been acknowledged for this time; none leaves that to the kernel.
    pub unacknowledged: Option<Duration>,
}

/// What the kernel takes, at most.
const LONGEST_QUIET: u64 = i16::MAX as u64;
const LONGEST_UNACKNOWLEDGED: Duration = Duration::from_millis(i32::MAX as u64);

impl Default for DeadHosts {
    /// Noticed after about 45 s even where nothing is being sent.
    fn default() -> Self {
        Self {
            after: Duration::from_secs(30),
            interval: Duration::from_secs(5),
            probes: 3,
            unacknowledged: None,
        }
    }
}

impl DeadHosts {
    /// Asks those at the other end while nothing is being sent. Four calls to the kernel.
    pub(super) fn ask(&self, socket: &impl AsFd) -> io::Result<()> {
        let keepalive = TcpKeepalive::new()
            .with_time(whole_seconds(self.after))
            .with_interval(whole_seconds(self.interval))
            .with_retries(self.probes);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)
    }

    /// Waits no longer for what is not acknowledged.
    pub(super) fn break_unacknowledged(&self, socket: &impl AsFd) -> io::Result<()> {
        let limit = self.unacknowledged.map(|limit| limit.min(LONGEST_UNACKNOWLEDGED));
        SockRef::from(socket).set_tcp_user_timeout(limit)
    }
}

fn whole_seconds(time: Duration) -> Duration {
    let up = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs((time.as_secs() + up).clamp(1, LONGEST_QUIET))
}

#[cfg(test)]
mod tests {
    use socket2::{Domain, Protocol, Socket, Type};

    use super::*;

    #[test]
    fn the_kernel_takes_every_time_that_may_be_written() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        for (millis, seconds, unacknowledged) in
            [(1, 1, 1), (1_000, 1, 1_000), (1_001, 2, 1_001), (u64::MAX, LONGEST_QUIET, i32::MAX as u64)]
        {
            let time = Duration::from_millis(millis);
            let hosts = DeadHosts { after: time, interval: time, probes: 100, unacknowledged: Some(time) };
            hosts.ask(&socket).unwrap();
            hosts.break_unacknowledged(&socket).unwrap();
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(seconds));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(seconds));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 100);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(unacknowledged)));
        }
        DeadHosts::default().break_unacknowledged(&socket).unwrap();
        assert_eq!(socket.tcp_user_timeout().unwrap(), None);
    }
}
