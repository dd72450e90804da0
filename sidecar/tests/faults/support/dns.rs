//! A DNS server that can fall silent.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{Name, RData, Record, RecordType},
};
use tokio::net::UdpSocket;
use tokio_util::task::AbortOnDropHandle;

/// Answers every name with the same addresses, for one second.
pub(crate) struct Dns {
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

#[derive(Default)]
struct Shared {
    addresses: Mutex<Vec<IpAddr>>,
    silent: AtomicBool,
    failing: AtomicBool,
    ignored: AtomicUsize,
    asked: AtomicUsize,
}

impl Dns {
    pub(crate) async fn start(at: SocketAddr, addresses: &[IpAddr]) -> Self {
        let socket = UdpSocket::bind(at).await.unwrap();
        let shared = Arc::<Shared>::default();
        shared.addresses.lock().unwrap().extend(addresses);
        let served = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut block = [0; 1500];
            loop {
                let (length, from) = socket.recv_from(&mut block).await.unwrap();
                served.asked.fetch_add(1, Relaxed);
                if served.silent.load(Relaxed) {
                    served.ignored.fetch_add(1, Relaxed);
                    continue;
                }
                let answer = served.answer(&Message::from_vec(&block[..length]).unwrap());
                socket.send_to(&answer, from).await.unwrap();
            }
        });
        Self { shared, _task: AbortOnDropHandle::new(task) }
    }

    pub(crate) fn answers(&self, addresses: &[IpAddr]) {
        *self.shared.addresses.lock().unwrap() = addresses.to_vec();
        self.shared.silent.store(false, Relaxed);
        self.shared.failing.store(false, Relaxed);
    }

    /// Answers SERVFAIL from now on.
    pub(crate) fn fails(&self) {
        self.shared.failing.store(true, Relaxed);
        self.shared.silent.store(false, Relaxed);
    }

    /// All queries so far.
    pub(crate) fn asked(&self) -> usize {
        self.shared.asked.load(Relaxed)
    }

    pub(crate) fn falls_silent(&self) {
        self.shared.silent.store(true, Relaxed);
    }

    /// Queries that got no answer.
    pub(crate) fn ignored(&self) -> usize {
        self.shared.ignored.load(Relaxed)
    }
}

impl Shared {
    fn answer(&self, request: &Message) -> Vec<u8> {
        let query = request.queries[0].clone();
        let mut response = Message::new(request.metadata.id, MessageType::Response, OpCode::Query);
        response.add_query(query.clone());
        if self.failing.load(Relaxed) {
            response.metadata.response_code = ResponseCode::ServFail;
            return response.to_vec().unwrap();
        }
        if query.query_type() == RecordType::A {
            let name: &Name = query.name();
            for address in self.addresses.lock().unwrap().iter() {
                response.add_answer(Record::from_rdata(name.clone(), 1, RData::from(*address)));
            }
        }
        response.to_vec().unwrap()
    }
}
