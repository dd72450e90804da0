//! A DNS server that can fall silent.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode},
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
    ignored: AtomicUsize,
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
        if query.query_type() == RecordType::A {
            let name: &Name = query.name();
            for address in self.addresses.lock().unwrap().iter() {
                response.add_answer(Record::from_rdata(name.clone(), 1, RData::from(*address)));
            }
        }
        response.to_vec().unwrap()
    }
}
