//! A datagram, and the one that answers it: send, again where it may have been lost, and compare how the answer begins.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crds::units::Address;
use tokio::{
    net::UdpSocket,
    time::{interval, timeout},
};

use super::Failure;

/// Times that the datagram is sent, evenly over the time that there is.
const SENT: u32 = 3;

/// Longest datagram.
const LONGEST: usize = 64 << 10;

/// What is sent, and how a good answer begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    pub question: Vec<u8>,
    /// Empty where any answer is good.
    pub answer: Vec<u8>,
}

impl Datagram {
    /// Never takes longer than `limit`.
    pub(super) async fn run(&self, address: &Address, limit: Duration) -> Result<(), Failure> {
        let address = address.ip().ok_or_else(|| Failure::Connect(io::ErrorKind::Unsupported.into()))?;
        let exchanged = timeout(limit, self.exchange(address, limit)).await;
        exchanged.map_err(|_| Failure::TimedOut(limit))?
    }

    async fn exchange(&self, address: SocketAddr, limit: Duration) -> Result<(), Failure> {
        let any: SocketAddr = match address {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        self.ask(UdpSocket::bind(any).await.map_err(Failure::Connect)?, address, limit).await
    }

    async fn ask(&self, socket: UdpSocket, address: SocketAddr, limit: Duration) -> Result<(), Failure> {
        // From then on only what comes from there is taken, and an ICMP error comes back.
        socket.connect(address).await.map_err(failed)?;
        let asked = socket.peer_addr().map_err(failed)?;
        let mut sending = interval((limit / SENT).max(Duration::from_millis(1)));
        let mut left = SENT;
        let mut answer = vec![0; LONGEST];
        loop {
            tokio::select! {
                biased;
                received = socket.recv_from(&mut answer) => {
                    let (length, from) = received.map_err(failed)?;
                    // What came before it was connected may be anybody's.
                    if (from.ip(), from.port()) == (asked.ip(), asked.port()) {
                        return self.judge(&answer[..length]);
                    }
                }
                _ = sending.tick(), if left > 0 => {
                    socket.send(&self.question).await.map_err(failed)?;
                    left -= 1;
                }
            }
        }
    }

    fn judge(&self, answer: &[u8]) -> Result<(), Failure> {
        if answer.starts_with(&self.answer) {
            return Ok(());
        }
        let words = |bytes: &[u8]| {
            let end = bytes.len().min(BEGINNING);
            let more = if bytes.len() > end { "..." } else { "" };
            format!("{}{more}", bytes[..end].escape_ascii())
        };
        Err(Failure::Datagram { answer: words(answer), expected: words(&self.answer) })
    }
}

/// Bytes of an answer that are told.
const BEGINNING: usize = 32;

fn failed(error: io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Failure::Refused,
        _ => Failure::Connect(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(600);

    /// Answers the datagram of this number, the first being 0, and those after it.
    async fn server(first: usize, answer: &'static [u8]) -> Address {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            let mut count = 0;
            while let Ok((received, from)) = socket.recv_from(&mut buffer).await {
                assert_eq!(&buffer[..received], b"ping");
                if count >= first {
                    socket.send_to(answer, from).await.unwrap();
                }
                count += 1;
            }
        });
        address.into()
    }

    async fn run(address: &Address, answer: &[u8]) -> Result<(), Failure> {
        Datagram { question: b"ping".to_vec(), answer: answer.to_vec() }.run(address, LIMIT).await
    }

    #[tokio::test]
    async fn any_answer_is_good_or_only_one_that_begins_so() {
        let address = server(0, b"pong\0\xff").await;
        for answer in [&b""[..], b"p", b"pong\0"] {
            run(&address, answer).await.unwrap();
        }
        let error = run(&address, b"ping").await.unwrap_err().to_string();
        assert_eq!(error, "its answer begins with \"pong\\x00\\xff\", not with \"ping\"");
    }

    #[tokio::test]
    async fn two_lost_datagrams_are_no_failure() {
        run(&server(2, b"pong").await, b"pong").await.unwrap();
    }

    #[tokio::test]
    async fn a_silent_server_is_asked_three_times() {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silence = run(&server.local_addr().unwrap().into(), b"").await;
        assert!(matches!(silence, Err(Failure::TimedOut(LIMIT))));
        let mut asked = 0;
        while server.try_recv(&mut [0; 64]).is_ok() {
            asked += 1;
        }
        assert_eq!(asked, 3);
    }

    #[tokio::test]
    async fn what_a_stranger_sends_before_it_asks_is_no_answer() {
        let Some(address) = server(0, b"pong").await.ip() else { panic!("no address") };
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        stranger.send_to(b"hello", socket.local_addr().unwrap()).await.unwrap();
        let datagram = Datagram { question: b"ping".to_vec(), answer: b"pong".to_vec() };
        timeout(LIMIT, datagram.ask(socket, address, LIMIT)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_refuses_and_silence_takes_the_time_limit() {
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
        assert!(matches!(run(&closed, b"").await, Err(Failure::Refused)));
        let silent = server(usize::MAX, b"").await;
        assert!(matches!(run(&silent, b"").await, Err(Failure::TimedOut(LIMIT))));
    }
}
