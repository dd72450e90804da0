//! Clients that GET one object without a pause on connections that they keep, and count what comes of it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{object, until};

/// Longer than any retry may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two attempts of a client that cannot even connect.
const PAUSE: Duration = Duration::from_millis(10);
/// Failures that are told word by word.
const TOLD: usize = 5;

/// How one request ended.
enum End {
    Good,
    /// Nothing of an answer came, or one that is not the object's.
    FailedBefore(String),
    /// The answer broke off, and the client could see it.
    FailedAfter,
    /// The answer ended as if it were whole, and was not.
    Lied(String),
}

#[derive(Default)]
struct Counts {
    good: AtomicUsize,
    before: AtomicUsize,
    after: AtomicUsize,
    lied: AtomicUsize,
    told: Mutex<Vec<String>>,
    stop: AtomicBool,
}

/// Clients at work, until [`Load::stop`].
pub(crate) struct Load {
    counts: Arc<Counts>,
    clients: JoinSet<()>,
}

/// What all clients have seen.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) good: usize,
    pub(crate) before: usize,
    pub(crate) after: usize,
    pub(crate) lied: usize,
    pub(crate) told: Vec<String>,
}

impl Load {
    pub(crate) fn start(address: SocketAddr, clients: usize) -> Self {
        let counts = Arc::<Counts>::default();
        let expected: Arc<[u8]> = object().into();
        let mut tasks = JoinSet::new();
        for _ in 0..clients {
            tasks.spawn(client(address, Arc::clone(&counts), Arc::clone(&expected)));
        }
        Self { counts, clients: tasks }
    }

    pub(crate) fn good(&self) -> usize {
        self.counts.good.load(Relaxed)
    }

    /// Waits until so many more requests were good.
    pub(crate) async fn serves(&self, more: usize) {
        let wanted = self.good() + more;
        until(&format!("{more} good requests: {:?}", self.counts.tally()), || self.good() >= wanted).await;
    }

    /// Waits until so many more requests have ended, however they did.
    pub(crate) async fn goes_on(&self, more: usize) {
        let wanted = self.counts.all() + more;
        until(&format!("{more} requests"), || self.counts.all() >= wanted).await;
    }

    /// Counts from zero again; requests under way count when they end.
    pub(crate) fn take(&self) -> Tally {
        let counts = &self.counts;
        Tally {
            good: counts.good.swap(0, Relaxed),
            before: counts.before.swap(0, Relaxed),
            after: counts.after.swap(0, Relaxed),
            lied: counts.lied.swap(0, Relaxed),
            told: std::mem::take(&mut counts.told.lock().unwrap()),
        }
    }

    /// Lets every client finish its request, prints the counts under this name, and gives them.
    pub(crate) async fn stop(self, name: &str) -> Tally {
        let tally = self.end().await;
        tally.print(name);
        tally
    }

    /// Lets every client finish its request.
    pub(crate) async fn end(mut self) -> Tally {
        self.counts.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        self.counts.tally()
    }
}

impl Counts {
    fn all(&self) -> usize {
        self.good.load(Relaxed)
            + self.before.load(Relaxed)
            + self.after.load(Relaxed)
            + self.lied.load(Relaxed)
    }

    fn add(&self, end: End) {
        let (counter, text) = match end {
            End::Good => (&self.good, None),
            End::FailedAfter => (&self.after, None),
            End::FailedBefore(text) => (&self.before, Some(text)),
            End::Lied(text) => (&self.lied, Some(text)),
        };
        counter.fetch_add(1, Relaxed);
        let mut told = self.told.lock().unwrap();
        if told.len() < TOLD {
            told.extend(text);
        }
    }

    fn tally(&self) -> Tally {
        Tally {
            good: self.good.load(Relaxed),
            before: self.before.load(Relaxed),
            after: self.after.load(Relaxed),
            lied: self.lied.load(Relaxed),
            told: self.told.lock().unwrap().clone(),
        }
    }
}

impl Tally {
    pub(crate) fn print(&self, name: &str) {
        eprintln!(
            "{name:<58} good {:>6}   failed before the first byte {:>4}, after {:>4}   false ends {}",
            self.good, self.before, self.after, self.lied
        );
    }

    /// Both promises, where a live backend has always been there.
    pub(crate) fn assert_nothing_failed_before(&self) {
        assert!(self.before == 0 && self.lied == 0, "{self:?}: {}", self.told.join("\n"));
    }
}

/// One GET on a connection of its own: whether it was good.
pub(crate) async fn get(address: SocketAddr) -> bool {
    let Ok(mut sender) = connect(address).await else { return false };
    matches!(request(&mut sender, &object()).await, End::Good)
}

async fn client(address: SocketAddr, counts: Arc<Counts>, expected: Arc<[u8]>) {
    while !counts.stop.load(Relaxed) {
        let mut sender = match connect(address).await {
            Ok(sender) => sender,
            Err(error) => {
                counts.add(End::FailedBefore(error));
                sleep(PAUSE).await;
                continue;
            }
        };
        while !counts.stop.load(Relaxed) && sender.ready().await.is_ok() {
            let end = timeout(PATIENCE, request(&mut sender, &expected))
                .await
                .unwrap_or_else(|_| End::FailedBefore("it took too long".to_owned()));
            let refused = matches!(end, End::FailedBefore(_));
            counts.add(end);
            if refused {
                sleep(PAUSE).await;
            }
        }
    }
}

async fn connect(address: SocketAddr) -> Result<SendRequest<Empty<Bytes>>, String> {
    let stream = timeout(PATIENCE, TcpStream::connect(address)).await.map_err(|_| "connect: no answer")?;
    let stream = stream.map_err(|error| format!("connect: {error}"))?;
    stream.set_nodelay(true).map_err(|error| error.to_string())?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn request(sender: &mut SendRequest<Empty<Bytes>>, expected: &[u8]) -> End {
    let request = Request::get("/object").header("host", "faults").body(Empty::new()).unwrap();
    let response = match sender.send_request(request).await {
        Ok(response) => response,
        Err(error) => return End::FailedBefore(format!("no answer: {error:?}")),
    };
    let status = response.status();
    let mut body = response.into_body();
    let mut received = Vec::with_capacity(expected.len());
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => received.extend_from_slice(frame.data_ref().map_or(&[][..], |data| data)),
            Err(_) if status == StatusCode::OK => return End::FailedAfter,
            Err(error) => return End::FailedBefore(format!("{status} and {error}")),
        }
    }
    if status != StatusCode::OK {
        return End::FailedBefore(format!("{status} {}", String::from_utf8_lossy(&received)));
    }
    if received == expected {
        return End::Good;
    }
    let (got, want) = (received.len(), expected.len());
    End::Lied(format!("{got} of {want} bytes, or other ones, and a clean end"))
}
