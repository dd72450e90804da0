//! Clients and backends that speak HTTP/2, frame by frame where a test wants it.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use h2::{
    RecvStream, SendStream,
    client::{self, SendRequest},
    server::{self, SendResponse},
};
use http::{HeaderMap, Request, Response};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

use super::in_time;

/// A connection to the sidecar.
pub(crate) struct H2Client {
    pub(crate) sender: SendRequest<Bytes>,
    task: AbortOnDropHandle<Result<(), h2::Error>>,
}

/// A message, whole.
#[derive(Debug, Clone)]
pub(crate) struct Whole<T> {
    pub(crate) head: T,
    pub(crate) body: Bytes,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole<Response<()>> {
    pub(crate) fn status(&self) -> u16 {
        self.head.status().as_u16()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name)?.to_str().ok()
    }
}

/// Windows in which many small answers have room.
fn builder() -> client::Builder {
    let mut builder = client::Builder::new();
    builder.initial_connection_window_size(1 << 20).initial_max_send_streams(100);
    builder
}

impl H2Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(in_time("connecting", TcpStream::connect(address)).await.unwrap()).await
    }

    pub(crate) async fn over(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> Self {
        let (sender, connection) = in_time("the preface", builder().handshake(stream)).await.unwrap();
        Self { sender, task: AbortOnDropHandle::new(tokio::spawn(connection)) }
    }

    /// A GET whose answer is awaited later.
    pub(crate) async fn begin(&self, request: Request<()>) -> client::ResponseFuture {
        let mut sender = in_time("a stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, true).unwrap().0
    }

    /// A request whose body is sent by hand.
    pub(crate) async fn open(&self, request: Request<()>) -> (client::ResponseFuture, SendStream<Bytes>) {
        let mut sender = in_time("a stream", self.sender.clone().ready()).await.unwrap();
        sender.send_request(request, false).unwrap()
    }

    /// Sends a request whole, and reads its answer whole.
    pub(crate) async fn send(
        &self,
        request: Request<()>,
        body: impl Into<Bytes>,
    ) -> Result<Whole<Response<()>>, h2::Error> {
        let (response, stream) = self.open(request).await;
        let sending = send_all(stream, body.into(), None);
        let receiving = async {
            let (head, body) = response.await?.into_parts();
            let (body, trailers) = read(body).await?;
            Ok(Whole { head: Response::from_parts(head, ()), body, trailers })
        };
        // An answer that comes early ends what is sent.
        in_time("an answer", async { tokio::join!(sending, receiving).1 }).await
    }

    pub(crate) async fn get(&self, path: &str) -> Whole<Response<()>> {
        let (head, body) = in_time("an answer", self.begin(get(path)).await).await.unwrap().into_parts();
        let (body, trailers) = in_time("a body", read(body)).await.unwrap();
        Whole { head: Response::from_parts(head, ()), body, trailers }
    }

    /// A GET that fails, before its head or after it: a reset may overtake what was sent before.
    pub(crate) async fn fails(&self, request: Request<()>) -> h2::Error {
        match in_time("an answer", self.begin(request).await).await {
            Ok(response) => in_time("the end", read(response.into_body())).await.unwrap_err(),
            Err(error) => error,
        }
    }

    /// Waits until the sidecar has said that it takes no more requests here.
    pub(crate) async fn is_sent_away(&self) {
        let waiting = async {
            let mut tick = tokio::time::interval(Duration::from_millis(2));
            while self.sender.clone().ready().await.is_ok() {
                tick.tick().await;
            }
        };
        in_time("the sidecar's word to leave", waiting).await;
    }

    /// Waits until the sidecar has ended the connection; a client that lets go of it ends it itself.
    pub(crate) async fn ended(self) -> Result<(), h2::Error> {
        let Self { sender: _held, task } = self;
        in_time("the end of the connection", task).await.unwrap()
    }
}

pub(crate) fn get(path: &str) -> Request<()> {
    Request::get(format!("http://app{path}")).body(()).unwrap()
}

pub(crate) fn post(path: &str) -> Request<()> {
    Request::post(format!("http://app{path}")).body(()).unwrap()
}

/// Reads a body to its end.
pub(crate) async fn read(mut body: RecvStream) -> Result<(Bytes, Option<HeaderMap>), h2::Error> {
    let mut all = Vec::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        all.extend_from_slice(&data);
    }
    Ok((all.into(), body.trailers().await?))
}

/// Sends a body within its window, and ends the stream.
pub(crate) async fn send_all(mut stream: SendStream<Bytes>, mut body: Bytes, trailers: Option<HeaderMap>) {
    while !body.is_empty() {
        let Some(room) = room(&mut stream, body.len()).await else { return };
        let last = room == body.len() && trailers.is_none();
        if stream.send_data(body.split_to(room), last).is_err() || last {
            return;
        }
    }
    // A client that has gone is for its side of the test to judge.
    let _ = match trailers {
        Some(trailers) => stream.send_trailers(trailers),
        None => stream.send_data(Bytes::new(), true),
    };
}

/// Room for so many bytes or fewer; none when the stream has ended.
pub(crate) async fn room(stream: &mut SendStream<Bytes>, wanted: usize) -> Option<usize> {
    stream.reserve_capacity(wanted);
    while stream.capacity() == 0 {
        std::future::poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
    }
    Some(stream.capacity().min(wanted))
}

/// A server on a free port, until it is dropped.
pub(crate) struct H2Backend {
    pub(crate) address: SocketAddr,
    seen: Arc<Seen>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Whole<Request<()>>>>,
}

/// One request as a backend sees it.
pub(crate) struct Visit {
    pub(crate) head: Request<()>,
    pub(crate) body: RecvStream,
    pub(crate) respond: SendResponse<Bytes>,
    seen: Arc<Seen>,
}

impl H2Backend {
    /// Does the same with each request.
    pub(crate) async fn start<V: Future<Output = ()> + Send + 'static>(
        visit: impl Fn(Visit) -> V + Send + Sync + 'static,
    ) -> Self {
        Self::with(&server::Builder::new(), visit).await
    }

    pub(crate) async fn with<V: Future<Output = ()> + Send + 'static>(
        builder: &server::Builder,
        visit: impl Fn(Visit) -> V + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, visit, builder) = (Arc::<Seen>::default(), Arc::new(visit), builder.clone());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let (builder, seen, visit) = (builder.clone(), Arc::clone(&shared), Arc::clone(&visit));
                connections.spawn(async move {
                    // Checks of the sidecar connect, and say nothing.
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    seen.connections.fetch_add(1, Ordering::Relaxed);
                    let mut visits = JoinSet::new();
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (head, body) = request.into_parts();
                        let (head, seen) = (Request::from_parts(head, ()), Arc::clone(&seen));
                        visits.spawn(visit(Visit { head, body, respond, seen }));
                    }
                });
            }
        });
        Self { address, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// Answers everything with its name.
    pub(crate) async fn named(name: &'static str) -> Self {
        Self::start(move |visit| async move {
            visit.read().await.unwrap().answer(Response::new(()), name).await;
        })
        .await
    }

    /// Answers so many requests on each connection, and then says that it takes no more there.
    pub(crate) async fn going_away_after(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Seen>::default());
        let shared = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let seen = Arc::clone(&shared);
                connections.spawn(async move {
                    let Ok(mut connection) = server::handshake(stream).await else { return };
                    seen.connections.fetch_add(1, Ordering::Relaxed);
                    let mut visits = JoinSet::new();
                    let mut left = count;
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        let (head, body) = request.into_parts();
                        let (head, seen) = (Request::from_parts(head, ()), Arc::clone(&seen));
                        let visit = Visit { head, body, respond, seen };
                        visits.spawn(async move {
                            visit.read().await.unwrap().answer(Response::new(()), "ok").await;
                        });
                        left = left.saturating_sub(1);
                        if left == 0 {
                            connection.graceful_shutdown();
                        }
                    }
                    visits.join_all().await;
                });
            }
        });
        Self { address, seen, _task: AbortOnDropHandle::new(task) }
    }

    /// The requests that came to their end so far.
    pub(crate) fn requests(&self) -> Vec<Whole<Request<()>>> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// As many as there are of them.
    pub(crate) fn served(&self) -> usize {
        self.seen.requests.lock().unwrap().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::Relaxed)
    }
}

/// A request that was read, and what answers it.
pub(crate) struct Asked {
    pub(crate) request: Whole<Request<()>>,
    pub(crate) respond: SendResponse<Bytes>,
}

impl Visit {
    /// Reads the body.
    pub(crate) async fn read(self) -> Result<Asked, h2::Error> {
        let (body, trailers) = read(self.body).await?;
        let request = Whole { head: self.head, body, trailers };
        self.seen.requests.lock().unwrap().push(request.clone());
        Ok(Asked { request, respond: self.respond })
    }
}

impl Asked {
    pub(crate) async fn answer(mut self, head: Response<()>, body: impl Into<Bytes>) {
        // A client that has gone is for its side of the test to judge.
        if let Ok(stream) = self.respond.send_response(head, false) {
            send_all(stream, body.into(), None).await;
        }
    }
}
