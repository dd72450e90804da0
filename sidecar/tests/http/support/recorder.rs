//! A backend that reads nothing into what it gets: it keeps the bytes, and answers once it has got as many as were awaited.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::in_time;

pub(crate) struct Recorder {
    pub(crate) address: SocketAddr,
    /// Of each connection, in the order in which they came.
    received: Arc<Mutex<Vec<Vec<u8>>>>,
    visits: TaskTracker,
    stop: CancellationToken,
}

impl Recorder {
    /// Answers each connection that has brought this many bytes, once.
    pub(crate) async fn awaiting(bytes: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (visits, stop) = (TaskTracker::new(), CancellationToken::new());
        let (tracker, shared) = (visits.clone(), Arc::clone(&received));
        visits.spawn(stop.clone().run_until_cancelled_owned(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let index = {
                    let mut received = shared.lock().unwrap();
                    received.push(Vec::new());
                    received.len() - 1
                };
                tracker.spawn(record(stream, bytes, Arc::clone(&shared), index));
            }
        }));
        Self { address, received, visits, stop }
    }

    /// What has come by now, over all connections.
    pub(crate) fn received(&self) -> Vec<u8> {
        self.received.lock().unwrap().concat()
    }

    /// All that came, once every connection has ended: nothing is under way any more.
    pub(crate) async fn all(self) -> Vec<u8> {
        self.stop.cancel();
        self.visits.close();
        in_time("the end of all connections", self.visits.wait()).await;
        self.received()
    }
}

async fn record(mut stream: TcpStream, awaited: usize, received: Arc<Mutex<Vec<Vec<u8>>>>, index: usize) {
    let mut buffer = [0; 4096];
    let mut answered = false;
    while let Ok(length @ 1..) = stream.read(&mut buffer).await {
        let total = {
            let record = &mut received.lock().unwrap()[index];
            record.extend_from_slice(&buffer[..length]);
            record.len()
        };
        if total >= awaited && !std::mem::replace(&mut answered, true) {
            // Whether anyone still waits for it is for the client's side of the test to judge.
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
        }
    }
}
