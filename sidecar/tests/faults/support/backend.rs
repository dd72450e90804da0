//! A backend whose manner can be changed while it serves.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::interval,
};
use tokio_util::task::AbortOnDropHandle;

use super::{LENGTH, object};

/// What a backend does with a request for the object. Checks of its health are answered well, but by one that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Good,
    /// Takes every request, and every check, and answers nothing.
    Hanging,
    /// Answers checks alone.
    HangingWithGoodHealth,
    /// The head of the answer comes at a byte a second.
    SlowHead,
    /// The first of the body's bytes come at a byte a second.
    SlowBody,
    ResetsBefore,
    /// Sends half of the body, with its length before it or in chunks, then resets or closes: each in turn.
    CutsBody,
    Garbage,
    /// A head of 64 MiB.
    HugeHead,
    /// Says that the connection stays open, and closes it.
    ClosesAfterAnswer,
    /// Answers with this status, and with few words.
    Answers(u16),
}

/// A server on a free port, until it is dropped.
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    manner: watch::Sender<Manner>,
    /// Requests for the object.
    requests: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

struct Visit {
    stream: TcpStream,
    manner: watch::Receiver<Manner>,
    requests: Arc<AtomicUsize>,
    object: Arc<[u8]>,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::at(([127, 0, 0, 1], 0).into()).await
    }

    pub(crate) async fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (manner, watched) = watch::channel(Manner::Good);
        let requests = Arc::<AtomicUsize>::default();
        let counted = Arc::clone(&requests);
        let object: Arc<[u8]> = object().into();
        let task = tokio::spawn(async move {
            let mut visits = JoinSet::new();
            loop {
                tokio::select! {
                    Ok((stream, _)) = listener.accept() => {
                        let (manner, requests) = (watched.clone(), Arc::clone(&counted));
                        visits.spawn(Visit { stream, manner, requests, object: Arc::clone(&object) }.serve());
                    }
                    Some(_) = visits.join_next() => {}
                }
            }
        });
        Self { address, manner, requests, _task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn becomes(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Relaxed)
    }
}

impl Visit {
    async fn serve(mut self) {
        self.stream.set_nodelay(true).unwrap();
        while let Some(head) = self.head().await {
            let is_check = head.starts_with("GET /health ");
            let manner = *self.manner.borrow();
            if is_check {
                if manner == Manner::Hanging {
                    return std::future::pending().await;
                }
                self.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                continue;
            }
            let turn = self.requests.fetch_add(1, Relaxed);
            let object = Arc::clone(&self.object);
            match manner {
                Manner::Good => self.send_object(&object, &head).await,
                Manner::Hanging | Manner::HangingWithGoodHealth => return std::future::pending().await,
                Manner::SlowHead => return self.trickle(length_head().as_bytes()).await,
                Manner::SlowBody => {
                    self.send(length_head().as_bytes()).await;
                    self.trickle(&object[..3]).await;
                    self.send(&object[3..]).await;
                }
                Manner::ResetsBefore => return self.reset(),
                Manner::CutsBody => return self.cut(turn, &object).await,
                Manner::Garbage => {
                    self.send(b"\x00\xffHTP/9 what?\r\n\r\n").await;
                    return;
                }
                Manner::HugeHead => {
                    self.send(b"HTTP/1.1 200 OK\r\n").await;
                    let lines = "X-Bomb: a\r\n".repeat(6 * 1024);
                    for _ in 0..1024 {
                        self.send(lines.as_bytes()).await;
                    }
                    return;
                }
                Manner::ClosesAfterAnswer => {
                    self.send_object(&object, &head).await;
                    return;
                }
                Manner::Answers(status) => {
                    let text = "it is not you, it is me";
                    let length = text.len();
                    let answer = format!("HTTP/1.1 {status} Sorry\r\nContent-Length: {length}\r\n\r\n{text}");
                    self.send(answer.as_bytes()).await;
                }
            }
        }
    }

    /// The next head, or none when the connection ends. No request here has a body.
    async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut block = [0; 4096];
            match self.stream.read(&mut block).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => head.extend_from_slice(&block[..count]),
            }
        }
        String::from_utf8(head).ok()
    }

    /// The object, or the rest of it for one who has had a part.
    async fn send_object(&mut self, object: &[u8], head: &str) {
        let from = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("range"))
            .and_then(|(_, range)| range.strip_prefix("bytes=")?.split_once('-')?.0.parse::<usize>().ok());
        let Some(from) = from else {
            self.send(length_head().as_bytes()).await;
            return self.send(object).await;
        };
        let rest = &object[from.min(LENGTH)..];
        let head = format!(
            "HTTP/1.1 206 Partial Content\r\nContent-Length: {}\r\nContent-Range: bytes {from}-{}/{LENGTH}\r\nETag: \"one\"\r\n\r\n",
            rest.len(),
            LENGTH - 1
        );
        self.send(head.as_bytes()).await;
        self.send(rest).await;
    }

    async fn cut(mut self, turn: usize, object: &[u8]) {
        let half = &object[..LENGTH / 2];
        if turn.is_multiple_of(2) {
            self.send(length_head().as_bytes()).await;
            self.send(half).await;
        } else {
            self.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
            self.send(format!("{:x}\r\n", half.len()).as_bytes()).await;
            self.send(half).await;
            self.send(b"\r\n").await;
        }
        if turn % 4 < 2 {
            self.reset();
        }
    }

    async fn send(&mut self, bytes: &[u8]) {
        // A client that has gone is for the client's side of the test to judge.
        let _ = self.stream.write_all(bytes).await;
    }

    async fn trickle(&mut self, bytes: &[u8]) {
        let mut tick = interval(Duration::from_secs(1));
        for byte in bytes {
            tick.tick().await;
            if self.stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    }

    fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).unwrap();
    }
}

fn length_head() -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {LENGTH}\r\nETag: \"one\"\r\n\r\n")
}
