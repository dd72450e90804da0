//! Servers that greet whoever connects, and clients that connect without a pause and count what comes of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::task::AbortOnDropHandle;

use super::until;

/// Longer than any connection may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two connections of a client: what they leave behind must not use up all ports.
const PAUSE: Duration = Duration::from_millis(2);

/// A server that sends a byte to everyone and then echoes. Dropping it closes its socket and all connections.
pub(crate) struct Greeter {
    pub(crate) address: SocketAddr,
    greeted: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Greeter {
    pub(crate) async fn start() -> Self {
        Self::at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let socket = TcpListener::bind(address).await.unwrap();
        let address = socket.local_addr().unwrap();
        let greeted = Arc::<AtomicUsize>::default();
        let count = Arc::clone(&greeted);
        let task = tokio::spawn(async move {
            let mut visits = JoinSet::new();
            while let Ok((mut stream, _)) = socket.accept().await {
                let count = Arc::clone(&count);
                visits.spawn(async move {
                    let mut byte = [0];
                    let _ = stream.write_all(b"k").await;
                    while stream.read(&mut byte).await.is_ok_and(|count| count > 0) {
                        count.fetch_add(1, Relaxed);
                        if stream.write_all(&byte).await.is_err() {
                            break;
                        }
                    }
                });
                while visits.try_join_next().is_some() {}
            }
        });
        Self { address, greeted, _task: AbortOnDropHandle::new(task) }
    }

    /// Bytes that came back from it.
    pub(crate) fn served(&self) -> usize {
        self.greeted.load(Relaxed)
    }
}

/// Clients that connect, are greeted, send a byte, get it back and leave.
pub(crate) struct Visitors {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

#[derive(Default)]
struct Counts {
    good: AtomicUsize,
    failed: AtomicUsize,
    /// Of those that failed, the ones that had been greeted.
    broken: AtomicUsize,
    /// Microseconds.
    longest: AtomicUsize,
    told: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Visitors {
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let counts = Arc::<Counts>::default();
        let mut set = JoinSet::new();
        for _ in 0..clients {
            let counts = Arc::clone(&counts);
            set.spawn(async move {
                while !counts.stop.load(Relaxed) {
                    let start = Instant::now();
                    let mut greeted = false;
                    let result = timeout(PATIENCE, visit(address, &mut greeted)).await;
                    let result = result.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
                    counts.longest.fetch_max(start.elapsed().as_micros() as usize, Relaxed);
                    match result {
                        Ok(()) => drop(counts.good.fetch_add(1, Relaxed)),
                        Err(error) => {
                            counts.failed.fetch_add(1, Relaxed);
                            counts.broken.fetch_add(usize::from(greeted), Relaxed);
                            counts.told.lock().unwrap().push(error.to_string());
                        }
                    }
                    sleep(PAUSE).await;
                }
            });
        }
        Self { counts, clients: set }
    }

    /// Waits for so many more that are served.
    pub(crate) async fn served(&self, more: usize) {
        let goal = self.counts.good.load(Relaxed) + more;
        until(&format!("{more} connections"), || self.counts.good.load(Relaxed) >= goal).await;
    }

    /// Waits for so many more to come to an end, whatever end.
    pub(crate) async fn ended(&self, more: usize) {
        let all = || self.counts.good.load(Relaxed) + self.counts.failed.load(Relaxed);
        let goal = all() + more;
        until(&format!("{more} connections, served or not"), || all() >= goal).await;
    }

    /// Connections that failed after they had been greeted.
    pub(crate) fn broken(&self) -> usize {
        self.counts.broken.load(Relaxed)
    }

    /// Ends them, prints what they saw, and gives the number of those that failed.
    pub(crate) async fn stop(self, what: &str) -> usize {
        let Self { counts, clients } = self;
        counts.stop.store(true, Relaxed);
        clients.join_all().await;
        let failed = counts.failed.load(Relaxed);
        let longest = Duration::from_micros(counts.longest.load(Relaxed) as u64);
        eprintln!(
            "{what}: {failed} of {} connections failed, the longest took {longest:.1?}",
            failed + counts.good.load(Relaxed)
        );
        for error in counts.told.lock().unwrap().iter().take(5) {
            eprintln!("  {error}");
        }
        failed
    }
}

async fn visit(address: SocketAddr, greeted: &mut bool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    let mut bytes = [0; 2];
    stream.read_exact(&mut bytes[..1]).await?;
    *greeted = true;
    stream.write_all(b"v").await?;
    stream.read_exact(&mut bytes[1..]).await?;
    if &bytes == b"kv" { Ok(()) } else { Err(std::io::ErrorKind::InvalidData.into()) }
}
