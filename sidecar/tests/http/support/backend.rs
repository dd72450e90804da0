//! Scripted backends: what a backend does with a connection is a closure.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::wire::{Message, read_body, read_head};

/// A server on a free port, until it is dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Message>>,
}

/// One connection as a backend sees it.
pub(crate) struct Visit {
    pub(crate) reader: BufReader<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
    seen: Arc<Seen>,
    counted: bool,
}

impl Backend {
    /// Does the same with every connection. Nobody connects without sending: checks of the sidecar are not visits.
    pub(crate) async fn start<V: Future<Output = ()> + Send + 'static>(
        visit: impl Fn(Visit) -> V + Send + 'static,
    ) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), visit)
    }

    pub(crate) fn on<V: Future<Output = ()> + Send + 'static>(
        listener: TcpListener,
        visit: impl Fn(Visit) -> V + Send + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Seen>::default();
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut visits = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                visits.spawn(visit(Visit::new(stream, Arc::clone(&shared))));
            }
        });
        Self { address, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Answers everything with these bytes.
    pub(crate) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut visit| {
            let answer = Arc::clone(&answer);
            async move {
                while visit.request().await.is_some() {
                    visit.send(&answer).await;
                }
            }
        })
        .await
    }

    /// Answers everything with its name.
    pub(crate) async fn named(name: &str) -> Self {
        let length = name.len();
        Self::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{name}")).await
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Message> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// Connections that brought a request.
    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

impl Visit {
    fn new(stream: TcpStream, seen: Arc<Seen>) -> Self {
        stream.set_nodelay(true).unwrap();
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer, seen, counted: false }
    }

    /// The next request with its body, or none when the connection ends.
    pub(crate) async fn request(&mut self) -> Option<Message> {
        let mut request = self.head().await?;
        let place = self.seen.requests.lock().unwrap().len() - 1;
        read_body(&mut self.reader, &mut request).await.ok()?;
        self.seen.requests.lock().unwrap()[place] = request.clone();
        Some(request)
    }

    /// The next request's head.
    pub(crate) async fn head(&mut self) -> Option<Message> {
        let request = read_head(&mut self.reader).await.ok()?;
        if !std::mem::replace(&mut self.counted, true) {
            self.seen.connections.fetch_add(1, Ordering::Relaxed);
        }
        self.seen.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // A client that has gone is for the client's side of the test to judge.
        let _ = self.writer.write_all(bytes.as_ref()).await;
    }

    /// Ends with a reset instead of a close.
    pub(crate) fn reset(self) {
        let stream = self.reader.into_inner().reunite(self.writer).unwrap();
        SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}
