//! One check of one backend: connect, ask if there is something to ask, judge. No state, no schedule.

use std::{io, pin::pin, time::Duration};

use bytes::Bytes;
use crds::{
    config::Protocol,
    units::{Address, StatusRange},
};
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::timeout;

use crate::net::{self, Spoken, Stream, Target};

/// What a GET says of who asks.
pub const USER_AGENT: &str = concat!("sidecar/", env!("CARGO_PKG_VERSION"));

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Connects, and makes the handshake where the backend is met within TLS.
    Tcp,
    Http(Get),
}

/// A GET, and what answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    pub path: String,
    /// The backend's own address if there is none.
    pub host: Option<String>,
    pub expected: Vec<StatusRange>,
}

/// Why a check failed, in the words that users see in the 503.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("connection refused")]
    Refused,
    #[error("there is no such socket")]
    NoSocket,
    #[error("no answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("GET {path} answered {status}, not {expected}")]
    Status { path: String, status: StatusCode, expected: String },
    #[error("GET {path} failed: {source}")]
    Http { path: String, source: hyper::Error },
    #[error("{0:?} is not a path to GET")]
    Path(String),
}

impl Probe {
    /// Runs the check; never takes longer than `limit`. Gives the status of the answer, if it asks for one.
    pub async fn check(
        &self,
        target: Target<'_>,
        protocol: Option<Protocol>,
        limit: Duration,
    ) -> Result<Option<StatusCode>, Failure> {
        timeout(limit, self.run(target, protocol, limit)).await.map_err(|_| Failure::TimedOut(limit))?
    }

    async fn run(
        &self,
        target: Target<'_>,
        protocol: Option<Protocol>,
        limit: Duration,
    ) -> Result<Option<StatusCode>, Failure> {
        let offered = net::offered(protocol);
        let stream = net::connect(target, offered, &[], limit).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionRefused => Failure::Refused,
            io::ErrorKind::NotFound => Failure::NoSocket,
            io::ErrorKind::TimedOut => Failure::TimedOut(limit),
            _ => Failure::Connect(error),
        })?;
        let spoken = net::spoken(&stream, protocol.unwrap_or_default()).map_err(Failure::Connect)?;
        match self {
            Self::Tcp => Ok(None),
            Self::Http(get) => get.run(stream, spoken, target.address).await.map(Some),
        }
    }
}

impl Get {
    async fn run(&self, stream: Stream, spoken: Spoken, address: &Address) -> Result<StatusCode, Failure> {
        let path = &self.path;
        let host = self.host.clone().unwrap_or_else(|| host(address));
        let request = Request::get(path).header(header::USER_AGENT, USER_AGENT);
        let request = match spoken {
            Spoken::Http1 => request.header(header::HOST, host).header(header::CONNECTION, "close"),
            Spoken::Http2 => {
                let scheme = if stream.is_tls() { "https" } else { "http" };
                request.uri(format!("{scheme}://{host}{path}"))
            }
        };
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| Failure::Path(path.clone()))?;
        let io = TokioIo::new(stream);
        let asked = match spoken {
            Spoken::Http1 => match http1::handshake(io).await {
                Ok((mut sender, connection)) => ask(sender.send_request(request), connection).await,
                Err(error) => Err(error),
            },
            Spoken::Http2 => match http2::handshake(TokioExecutor::new(), io).await {
                Ok((mut sender, connection)) => ask(sender.send_request(request), connection).await,
                Err(error) => Err(error),
            },
        };
        let status = asked.map_err(|source| Failure::Http { path: path.clone(), source })?.status();
        self.judge(status)
    }

    fn judge(&self, status: StatusCode) -> Result<StatusCode, Failure> {
        if self.expected.iter().any(|range| range.contains(status.as_u16())) {
            return Ok(status);
        }
        let expected: Vec<_> = self.expected.iter().map(StatusRange::to_string).collect();
        Err(Failure::Status { path: self.path.clone(), status, expected: expected.join(" or ") })
    }
}

/// Waits for the answer, while the connection is driven.
async fn ask<B>(
    response: impl Future<Output = hyper::Result<Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> hyper::Result<Response<B>> {
    let (mut response, mut connection) = (pin!(response), pin!(connection));
    tokio::select! {
        biased;
        response = &mut response => response,
        ended = &mut connection => match ended {
            Ok(()) => response.await,
            Err(error) => Err(error),
        },
    }
}

/// Who is asked for: a socket has no name, and `localhost` is what servers behind one expect.
fn host(address: &Address) -> String {
    address.ip().map_or_else(|| "localhost".to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    /// Answers every connection with these bytes, or never for none.
    async fn server(answer: Option<&'static str>) -> Address {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                if let Some(answer) = answer {
                    // The first byte of the request is enough to answer; a check by connect alone sends none.
                    stream.read_u8().await.ok();
                    stream.write_all(answer.as_bytes()).await.ok();
                }
                held.push(stream);
            }
        });
        address.into()
    }

    fn expecting(statuses: &[&str]) -> Probe {
        let expected = statuses.iter().map(|range| range.parse().unwrap()).collect();
        Probe::Http(Get { path: "/ready".into(), host: None, expected })
    }

    fn ready() -> Probe {
        expecting(&["200"])
    }

    #[tokio::test]
    async fn only_what_is_expected_is_good() {
        let ok = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
        ready().check(Target::new(&ok, None), Some(Protocol::Http1), LIMIT).await.unwrap();
        let empty = server(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
        let target = Target::new(&empty, None);
        let seen = expecting(&["200-299"]).check(target, Some(Protocol::Http1), LIMIT).await.unwrap();
        assert_eq!(seen, Some(StatusCode::NO_CONTENT));
        for (expected, message) in [
            (&["200"][..], "GET /ready answered 204 No Content, not 200"),
            (&["200-203", "401"], "GET /ready answered 204 No Content, not 200-203 or 401"),
        ] {
            let error = expecting(expected)
                .check(Target::new(&empty, None), Some(Protocol::Http1), LIMIT)
                .await
                .unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }

    #[tokio::test]
    async fn a_check_asks_for_the_host_that_was_configured() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().into();
        let asked = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 512];
            let count = stream.read(&mut head).await.unwrap();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.unwrap();
            String::from_utf8_lossy(&head[..count]).into_owned()
        };
        let get = Get {
            path: "/".into(),
            host: Some("s3.example.com".into()),
            expected: vec!["200".parse().unwrap()],
        };
        let probe = Probe::Http(get);
        let (head, checked) =
            tokio::join!(asked, probe.check(Target::new(&address, None), Some(Protocol::Http1), LIMIT));
        checked.unwrap();
        assert!(head.contains("host: s3.example.com\r\n"), "{head}");
    }

    #[tokio::test]
    async fn silence_is_a_failure_after_the_time_limit() {
        let silent = server(None).await;
        assert!(matches!(
            ready().check(Target::new(&silent, None), Some(Protocol::Http1), LIMIT).await,
            Err(Failure::TimedOut(_))
        ));
        Probe::Tcp.check(Target::new(&silent, None), Some(Protocol::Http1), LIMIT).await.unwrap();
    }

    #[tokio::test]
    async fn garbage_is_a_failure() {
        let garbage = server(Some("SSH-2.0-OpenSSH_9.9\r\n")).await;
        assert!(matches!(
            ready().check(Target::new(&garbage, None), Some(Protocol::Http1), LIMIT).await,
            Err(Failure::Http { .. })
        ));
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
        for probe in [Probe::Tcp, ready()] {
            assert!(matches!(
                probe.check(Target::new(&address, None), Some(Protocol::Http1), LIMIT).await,
                Err(Failure::Refused)
            ));
        }
    }
}
