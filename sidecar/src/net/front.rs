//! One open listener: bind -> accept -> a lane for each thread -> drain. What is spoken there is up to those who serve the
//! lanes.

use std::{io, net::TcpListener, sync::Arc, time::Duration};

use crds::units::Address;
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Accepted, Acceptor, DeadHosts, Workers, bind};

/// What a listener is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    Serving,
    /// New connections come, and all of them end as soon as they can: their clients are to go elsewhere.
    Leaving,
    /// No new connections, and those that are open end as soon as they can.
    Draining,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("listener {listener} cannot listen on {address}: {source}; {}", remedy(.address, .source))]
pub struct BindError {
    pub listener: String,
    pub address: Address,
    pub source: io::Error,
}

fn remedy(address: &Address, error: &io::Error) -> &'static str {
    match (address, error.kind()) {
        (Address::Ip(_), io::ErrorKind::PermissionDenied) => {
            "ports below 1024 need a right that this process does not have: choose a higher one"
        }
        (Address::Ip(_), io::ErrorKind::AddrNotAvailable) => "write an address of this machine or pod",
        (Address::Ip(_), _) => "choose another port, or stop what uses it",
        (Address::Unix(_), io::ErrorKind::AddrInUse) => "choose another path, or stop what uses it",
        (Address::Unix(_), _) => "create its directory, writable for this process",
    }
}

/// What one thread serves.
pub struct Lane {
    pub queue: mpsc::Receiver<Accepted>,
    /// The listener drops its end to cut everything off.
    pub phase: watch::Receiver<Phase>,
    /// Dropped when the last connection has gone.
    pub done: mpsc::Sender<()>,
}

/// An open listener. Dropping it closes it and all its connections at once; [`Front::drain`] lets them finish.
pub struct Front {
    name: Arc<str>,
    address: Address,
    /// Gives connections what is set at it. To be closed before those that come are to be refused.
    socket: Option<TcpListener>,
    phase: watch::Sender<Phase>,
    stop: CancellationToken,
    acceptor: AbortOnDropHandle<()>,
    /// Ends when all threads have no connection left.
    done: mpsc::Receiver<()>,
}

impl Front {
    /// Binds and accepts; gives one lane for each of [`Workers::handles`], in their order. Must be called within the control
    /// runtime.
    pub fn open(name: &str, address: &Address, workers: &Workers) -> Result<(Self, Vec<Lane>), BindError> {
        let failed = |source| BindError { listener: name.to_owned(), address: address.clone(), source };
        let socket = bind(address).map_err(failed)?;
        let address = socket.address().map_err(failed)?;
        let handle = socket.tcp().map_err(failed)?;
        let (acceptor, queues) = Acceptor::new(socket, workers).map_err(failed)?;
        let phase = watch::Sender::new(Phase::Serving);
        let (sender, done) = mpsc::channel(1);
        let lanes = queues
            .into_iter()
            .map(|queue| Lane { queue, phase: phase.subscribe(), done: sender.clone() })
            .collect();
        let stop = CancellationToken::new();
        let acceptor = AbortOnDropHandle::new(tokio::spawn(acceptor.run(stop.clone())));
        tracing::info!(listener = name, %address, "listening");
        Ok((Self { name: name.into(), address, socket: handle, phase, stop, acceptor, done }, lanes))
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Goes on accepting, and has connections end as soon as they can.
    pub fn leave(&self) {
        self.phase.send_if_modified(|phase| std::mem::replace(phase, Phase::Leaving) != Phase::Leaving);
    }

    /// When the hosts of clients that come from now on are given up; the default until this is called.
    pub fn watch_hosts(&self, hosts: &DeadHosts) -> io::Result<()> {
        let Some(socket) = &self.socket else { return Ok(()) };
        hosts.ask(socket)?;
        hosts.break_unacknowledged(socket)
    }

    /// Stops accepting and waits until the threads have no connection left; what is left after `limit` is cut off.
    /// `connections` counts them.
    pub async fn drain(mut self, limit: Duration, connections: impl Fn() -> usize) {
        self.socket = None;
        self.stop.cancel();
        self.phase.send_replace(Phase::Draining);
        let drained = timeout(limit, async {
            if (&mut self.acceptor).await.is_err() {
                tracing::error!(listener = %self.name, "accepting had ended before");
            }
            // Nothing is ever sent: this is the end of all senders.
            self.done.recv().await;
        });
        if drained.await.is_err() {
            let (listener, connections) = (&self.name, connections());
            tracing::warn!(%listener, connections, "draining took too long, connections are cut off");
        }
        tracing::info!(listener = %self.name, address = %self.address, "closed");
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;
    use crate::net::Socket;

    async fn accepted(lane: &mut Lane) -> tokio::net::TcpStream {
        let (socket, _) = lane.queue.recv().await.unwrap().register().unwrap();
        match socket {
            Socket::Tcp(socket) => socket,
            Socket::Unix(_) => panic!("not TCP"),
        }
    }

    #[tokio::test]
    async fn connections_have_from_their_listener_when_a_host_is_given_up() {
        let workers = Workers::start(1).unwrap();
        let (front, mut lanes) = Front::open("a", &([127, 0, 0, 1], 0).into(), &workers).unwrap();
        let address = front.address().ip().unwrap();
        let default = DeadHosts::default();
        let seconds = Duration::from_secs;
        let other = DeadHosts {
            after: seconds(7),
            interval: seconds(2),
            probes: 9,
            unacknowledged: Some(seconds(8)),
        };
        for (round, hosts) in [default, other, default].iter().enumerate() {
            if round > 0 {
                front.watch_hosts(hosts).unwrap();
            }
            let _client = TcpStream::connect(address).unwrap();
            let socket = accepted(&mut lanes[0]).await;
            let socket = SockRef::from(&socket);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), hosts.after);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), hosts.interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), hosts.probes);
            assert_eq!(socket.tcp_user_timeout().unwrap(), hosts.unacknowledged);
        }
    }

    #[tokio::test]
    async fn a_listener_that_drains_refuses() {
        let workers = Workers::start(1).unwrap();
        let (front, mut lanes) = Front::open("a", &([127, 0, 0, 1], 0).into(), &workers).unwrap();
        let address = front.address().ip().unwrap();
        // Draining goes on for as long as a lane does.
        let mut draining = tokio::spawn(front.drain(Duration::from_secs(60), || 0));
        lanes[0].phase.wait_for(|phase| *phase == Phase::Draining).await.unwrap();
        assert!(lanes[0].queue.recv().await.is_none(), "the acceptor has ended");
        assert!(TcpStream::connect(address).is_err());
        assert!(!draining.is_finished());
        drop(lanes);
        (&mut draining).await.unwrap();
    }
}
