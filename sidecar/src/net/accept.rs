//! Accepting: one listening socket, and each connection to the worker that has the fewest. A socket without a listener
//! would lose the connections in its queue, so what is queued is still accepted when the acceptor is told to stop.

use std::{fs::File, io, net as std_net, os::unix::net as std_unix, sync::Arc, time::Duration};

use futures::FutureExt;
use tokio::{
    net,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Listening, Socket, Stream, Worker, Workers, tls::Server, unix::SocketFile, workers::Occupied};

/// Accepted connections that wait for their thread to take them; beyond it they wait in the socket's queue.
const QUEUE: usize = 1024;

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

type Lane = (Worker, mpsc::Sender<Accepted>);

/// Accepts for one listener.
pub struct Acceptor {
    socket: ListeningSocket,
    lanes: Vec<Lane>,
    slots: Arc<Semaphore>,
}

/// A connection, counted for as long as `slot` lives.
pub struct Accepted {
    stream: Unregistered,
    slot: Slot,
}

/// A connected socket that no runtime knows yet.
enum Unregistered {
    Tcp(std_net::TcpStream),
    Unix(std_unix::UnixStream),
}

/// Registered with the control runtime, which accepts.
enum ListeningSocket {
    Tcp(net::TcpListener),
    Unix(net::UnixListener, SocketFile),
}

/// A connection's place in the limit of the process and in the count of its worker.
pub struct Slot {
    _occupied: Occupied,
    _permit: OwnedSemaphorePermit,
}

impl Acceptor {
    /// Gives for each worker the queue that its connections arrive in.
    pub fn new(socket: Listening, workers: &Workers) -> io::Result<(Self, Vec<mpsc::Receiver<Accepted>>)> {
        let (lanes, queues) = workers
            .handles()
            .into_iter()
            .map(|worker| {
                let (sender, queue) = mpsc::channel(QUEUE);
                ((worker, sender), queue)
            })
            .unzip();
        let socket = match socket {
            Listening::Tcp(socket) => ListeningSocket::Tcp(net::TcpListener::from_std(socket)?),
            Listening::Unix(socket) => {
                let (socket, file) = socket.into_parts();
                ListeningSocket::Unix(net::UnixListener::from_std(socket)?, file)
            }
        };
        Ok((Self { socket, lanes, slots: workers.slots() }, queues))
    }

    /// Accepts until told to stop, then what is still queued, then closes the socket.
    pub async fn run(self, stop: CancellationToken) {
        let mut reserve = open_reserve();
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                accepted = self.accept() => accepted,
            };
            match accepted {
                Ok((stream, permit)) => {
                    pause = FIRST_PAUSE;
                    Self::hand_over(&self.lanes, stream, permit).await;
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting failed, pausing");
                    if reserve.take().is_some() {
                        // The first in the queue sees a close instead of silence.
                        drop(self.socket.accept().now_or_never());
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(pause) => {}
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    reserve = open_reserve();
                }
            }
        }
        self.finish().await;
    }

    async fn accept(&self) -> io::Result<(Unregistered, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
        Ok((self.socket.accept().await?, permit))
    }

    async fn hand_over(lanes: &[Lane], stream: Unregistered, permit: OwnedSemaphorePermit) {
        let Some((worker, lane)) = lanes.iter().min_by_key(|(worker, _)| worker.connections()) else {
            return;
        };
        let slot = Slot { _occupied: worker.occupy(), _permit: permit };
        if lane.send(Accepted { stream, slot }).await.is_err() {
            tracing::debug!("a connection came after its thread had ended");
        }
    }

    async fn finish(self) {
        match self.socket {
            ListeningSocket::Tcp(socket) => {
                let Ok(socket) = socket.into_std() else { return };
                let accept = || socket.accept().map(|(stream, _)| Unregistered::Tcp(stream));
                Self::take_the_rest(&self.lanes, &self.slots, accept).await;
            }
            ListeningSocket::Unix(socket, _file) => {
                let Ok(socket) = socket.into_std() else { return };
                let accept = || socket.accept().map(|(stream, _)| Unregistered::Unix(stream));
                Self::take_the_rest(&self.lanes, &self.slots, accept).await;
            }
        }
    }

    async fn take_the_rest(
        lanes: &[Lane],
        slots: &Arc<Semaphore>,
        accept: impl Fn() -> io::Result<Unregistered>,
    ) {
        while let Ok(permit) = Arc::clone(slots).try_acquire_owned() {
            match accept().and_then(Unregistered::nonblocking) {
                Ok(stream) => Self::hand_over(lanes, stream, permit).await,
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => return,
            }
        }
    }
}

impl ListeningSocket {
    async fn accept(&self) -> io::Result<Unregistered> {
        match self {
            Self::Tcp(socket) => socket.accept().await?.0.into_std().map(Unregistered::Tcp),
            Self::Unix(socket, _) => socket.accept().await?.0.into_std().map(Unregistered::Unix),
        }
    }
}

impl Unregistered {
    /// One that was accepted outside of a runtime. All else it has from the socket that it was accepted at.
    fn nonblocking(self) -> io::Result<Self> {
        match &self {
            Self::Tcp(stream) => stream.set_nonblocking(true)?,
            Self::Unix(stream) => stream.set_nonblocking(true)?,
        }
        Ok(self)
    }
}

impl Accepted {
    /// Opens the connection on the runtime of the thread that serves it. With a server this waits for the handshake, which
    /// has a limit.
    pub async fn open(self, tls: Option<&Server>) -> io::Result<(Stream, Slot)> {
        let (socket, slot) = self.register()?;
        let stream = match tls {
            // On the heap, so that a connection is no larger for it once it is open.
            Some(server) => Box::pin(server.accept(socket)).await?,
            None => socket.into(),
        };
        Ok((stream, slot))
    }

    /// Opens the connection on the runtime of the thread that serves it, and reads nothing of it.
    pub fn register(self) -> io::Result<(Socket, Slot)> {
        let socket = match self.stream {
            Unregistered::Tcp(stream) => net::TcpStream::from_std(stream).map(Socket::Tcp),
            Unregistered::Unix(stream) => net::UnixStream::from_std(stream).map(Socket::Unix),
        }?;
        Ok((socket, self.slot))
    }
}

fn open_reserve() -> Option<File> {
    File::open("/dev/null").ok()
}

/// Errors of the connection that was to be accepted, not of accepting.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use socket2::SockRef;

    use super::*;
    use crate::net::{DeadHosts, bind};

    /// A socket on a free port, and the address to connect to.
    fn listening() -> (Listening, std_net::SocketAddr) {
        let socket = bind(&([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.address().unwrap().ip().unwrap();
        (socket, address)
    }

    #[tokio::test]
    async fn connections_go_to_the_worker_with_the_fewest() {
        let workers = Workers::start(2).unwrap();
        let (socket, address) = listening();
        let (acceptor, mut queues) = Acceptor::new(socket, &workers).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(acceptor.run(stop.clone()));

        let mut clients = Vec::new();
        let mut held = Vec::new();
        for round in 0..4 {
            clients.push(TcpStream::connect(address).unwrap());
            held.push(queues[round % 2].recv().await.unwrap());
        }
        let watched = |accepted: &Accepted| match &accepted.stream {
            Unregistered::Tcp(stream) => {
                let socket = SockRef::from(stream);
                socket.keepalive().unwrap()
                    && socket.tcp_keepalive_time().unwrap() == DeadHosts::default().after
            }
            Unregistered::Unix(_) => false,
        };
        assert!(held.iter().all(watched), "a client that has gone without a word would stay for ever");
        let prompt = |accepted: &Accepted| match &accepted.stream {
            Unregistered::Tcp(stream) => SockRef::from(stream).tcp_nodelay().unwrap(),
            Unregistered::Unix(_) => false,
        };
        assert!(held.iter().all(prompt), "small answers would wait for each other");
        assert!(workers.handles().iter().all(|worker| worker.connections() == 2));
        drop(held);
        assert_eq!(workers.connections(), 0);
        stop.cancel();
        task.await.unwrap();
    }

    #[tokio::test]
    async fn what_is_queued_when_told_to_stop_is_still_accepted() {
        let workers = Workers::start(1).unwrap();
        let (socket, address) = listening();
        let (acceptor, mut queues) = Acceptor::new(socket, &workers).unwrap();
        let _clients: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
        let stop = CancellationToken::new();
        stop.cancel();
        acceptor.run(stop).await;
        let mut taken = 0;
        while queues[0].recv().await.is_some() {
            taken += 1;
        }
        assert_eq!(taken, 5);
        assert!(TcpStream::connect(address).is_err());
    }

    #[tokio::test]
    async fn all_listeners_together_stay_within_one_limit() {
        let workers = Workers::start(1).unwrap();
        let (stop, most) = (CancellationToken::new(), workers.slots().available_permits());
        stop.cancel();
        let mut kept = Vec::new();
        for _ in 0..2 {
            let (socket, address) = listening();
            let client = TcpStream::connect(address).unwrap();
            let (acceptor, queues) = Acceptor::new(socket, &workers).unwrap();
            acceptor.run(stop.clone()).await;
            kept.push((client, queues));
        }
        assert_eq!(workers.slots().available_permits(), most - 2);
        drop(kept);
        assert_eq!(workers.slots().available_permits(), most);
    }
}
