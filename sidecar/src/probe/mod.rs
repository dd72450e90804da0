//! One check of one backend: connect, ask if there is something to ask, judge. No state, no schedule.
//!
//! A connection within TLS is there when the handshake is, so that every check by TCP verifies who answers where TLS is set. What
//! is asked on it is a file of its own for each protocol.

mod dialog;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod http;
mod password;
mod postgres;
mod redis;
mod udp;

use std::{io, time::Duration};

use ::http::StatusCode;
use crds::config::Protocol;
use tokio::time::timeout;

pub use self::http::{Get, USER_AGENT};
pub use self::password::{Password, PasswordError};
pub use self::postgres::{Postgres, PostgresFailure};
pub use self::redis::{Redis, RedisFailure};
pub use self::udp::Datagram;
use crate::net::{self, Socket, Target};

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Connects, and makes the handshake where the backend is met within TLS.
    Tcp,
    Http(Get),
    Postgres(Postgres),
    Redis(Redis),
    Udp(Datagram),
}

/// Why a check failed, in the words that users see in the 503 and in logs. Never tells a password.
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
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    #[error("it closed the connection without an answer")]
    Silent,
    #[error("its answer has no end; correct the port, or the check")]
    TooMuch,
    #[error("GET {path} answered {status}, not {expected}")]
    Status { path: String, status: StatusCode, expected: String },
    #[error("GET {path} failed: {source}")]
    Http { path: String, source: hyper::Error },
    #[error("{0:?} is not a path to GET")]
    Path(String),
    #[error("it is {found}, and the listener wants {wanted}")]
    Role { found: &'static str, wanted: &'static str },
    #[error("its answer begins with \"{answer}\", not with \"{expected}\"")]
    Datagram { answer: String, expected: String },
    #[error("the check has no password: {0}")]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Postgres(#[from] PostgresFailure),
    #[error(transparent)]
    Redis(#[from] RedisFailure),
}

impl Failure {
    fn role(found: &'static str, wanted: &'static str) -> Self {
        Self::Role { found, wanted }
    }

    /// Whether the server answered that it has no room to say more: that tells nothing about how it serves others.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self, Self::Postgres(PostgresFailure::Full { .. }) | Self::Redis(RedisFailure::Full))
    }
}

impl Probe {
    /// Runs the check; never takes longer than `limit`. `preface` are the bytes in front of a connection. Gives the status of
    /// the answer, if it asks for one.
    pub async fn check(
        &self,
        target: Target<'_>,
        protocol: Option<Protocol>,
        preface: &[u8],
        limit: Duration,
    ) -> Result<Option<StatusCode>, Failure> {
        let run = self.run(target, protocol, preface, limit);
        timeout(limit, run).await.map_err(|_| Failure::TimedOut(limit))?
    }

    async fn run(
        &self,
        target: Target<'_>,
        protocol: Option<Protocol>,
        preface: &[u8],
        limit: Duration,
    ) -> Result<Option<StatusCode>, Failure> {
        if let Self::Udp(datagram) = self {
            return datagram.run(target.address, limit).await.map(|()| None);
        }
        let offered = net::offered(protocol);
        let stream =
            net::connect(target, offered, preface, limit).await.map_err(|error| match error.kind() {
                io::ErrorKind::ConnectionRefused => Failure::Refused,
                io::ErrorKind::NotFound => Failure::NoSocket,
                io::ErrorKind::TimedOut => Failure::TimedOut(limit),
                _ => Failure::Connect(error),
            })?;
        match self {
            Self::Tcp | Self::Udp(_) => Ok(None),
            Self::Http(get) => {
                let spoken = net::spoken(&stream, protocol.unwrap_or_default()).map_err(Failure::Connect)?;
                get.run(stream, spoken, target.address).await.map(Some)
            }
            Self::Postgres(postgres) => {
                let password = read(postgres.password_file.as_deref())?;
                let private = stream.is_tls() || matches!(stream.socket(), Socket::Unix(_));
                dialog::talk(stream, &mut postgres.dialog(password.as_ref(), private)).await.map(|()| None)
            }
            Self::Redis(redis) => {
                let password = read(redis.password_file.as_deref())?;
                dialog::talk(stream, &mut redis.dialog(password.as_ref())).await.map(|()| None)
            }
        }
    }
}

/// A small file in memory: there is nothing to wait for.
fn read(file: Option<&str>) -> Result<Option<Password>, PasswordError> {
    file.map(Password::read).transpose()
}

#[cfg(test)]
mod tests {
    use crds::units::Address;
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
        ready().check(Target::new(&ok, None), Some(Protocol::Http1), &[], LIMIT).await.unwrap();
        let empty = server(Some("HTTP/1.1 204 No Content\r\n\r\n")).await;
        let target = Target::new(&empty, None);
        let seen = expecting(&["200-299"]).check(target, Some(Protocol::Http1), &[], LIMIT).await.unwrap();
        assert_eq!(seen, Some(StatusCode::NO_CONTENT));
        for (expected, message) in [
            (&["200"][..], "GET /ready answered 204 No Content, not 200"),
            (&["200-203", "401"], "GET /ready answered 204 No Content, not 200-203 or 401"),
        ] {
            let error = expecting(expected)
                .check(Target::new(&empty, None), Some(Protocol::Http1), &[], LIMIT)
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
            tokio::join!(asked, probe.check(Target::new(&address, None), Some(Protocol::Http1), &[], LIMIT));
        checked.unwrap();
        assert!(head.contains("host: s3.example.com\r\n"), "{head}");
    }

    #[tokio::test]
    async fn silence_is_a_failure_after_the_time_limit() {
        let silent = server(None).await;
        assert!(matches!(
            ready().check(Target::new(&silent, None), Some(Protocol::Http1), &[], LIMIT).await,
            Err(Failure::TimedOut(_))
        ));
        Probe::Tcp.check(Target::new(&silent, None), Some(Protocol::Http1), &[], LIMIT).await.unwrap();
    }

    #[tokio::test]
    async fn garbage_is_a_failure() {
        let garbage = server(Some("SSH-2.0-OpenSSH_9.9\r\n")).await;
        assert!(matches!(
            ready().check(Target::new(&garbage, None), Some(Protocol::Http1), &[], LIMIT).await,
            Err(Failure::Http { .. })
        ));
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
        for probe in [Probe::Tcp, ready()] {
            assert!(matches!(
                probe.check(Target::new(&address, None), Some(Protocol::Http1), &[], LIMIT).await,
                Err(Failure::Refused)
            ));
        }
    }
}
