//! What comes before the first word for a server, where clients speak PostgreSQL: requests for encryption and their answers -> TLS,
//! if the listener has it -> a StartupMessage, which goes on as it came, or a request to cancel.
//!
//! No byte is read beyond what was asked for: what a client sends behind SSLRequest in plain text is never believed to have come
//! within TLS.

use std::{io, time::Duration};

use crds::config::{PlainText, TcpListener, TcpProtocol};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::net::{
    Socket, Stream,
    postgres::{BadOpening, CancelKey, HEAD, NO, Opening, YES, refusal},
    tls::Server,
};

/// A client that has not said what it wants after this time is cut off.
const LIMIT: Duration = Duration::from_secs(10);

/// A client that does not take its refusal has gone after this time.
const REFUSING: Duration = Duration::from_secs(1);

/// GSSAPI, then TLS, then what it is about.
const MOST_WORDS: usize = 3;

/// Of SQLSTATE.
const NOT_AUTHORIZED: &str = "28000";
const CANNOT_CONNECT_NOW: &str = "57P03";

/// What clients get to hear who ask for TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Manners {
    /// The listener's TLS begins when the client asks for it, and not with the first byte.
    starts: bool,
    /// Who does not ask for it is served as well.
    allows_plain: bool,
    /// The sidecar speaks TLS with the servers, so that clients cannot.
    within: bool,
}

/// What a client wants.
pub(super) enum Wanted {
    Server(Words),
    Cancel(CancelKey),
}

/// What a client has said, and how it goes on by that.
#[derive(Default)]
pub(super) struct Words {
    pub(super) said: Said,
    /// It would understand a refusal in PostgreSQL's words.
    pub(super) understands: bool,
    /// The server name that it asks for, where backends go by that.
    pub(super) name: Option<String>,
}

/// What a client has said that is for a server to hear.
#[derive(Default)]
pub(super) struct Said {
    pub(super) bytes: Vec<u8>,
    /// One server alone may hear it: it may act on it, and leave without a word.
    pub(super) once: bool,
    /// It is SSLRequest, which servers have to answer.
    pub(super) asks_for_tls: bool,
}

impl Manners {
    /// None where PostgreSQL is not spoken.
    pub(super) fn of(config: &TcpListener) -> Option<Self> {
        let tls = config.tls.as_ref();
        config.spoken().map(|TcpProtocol::Postgres| Self {
            starts: tls.is_some_and(|tls| tls.start_tls.is_some()),
            allows_plain: tls.is_some_and(|tls| tls.plain_text == PlainText::Allow),
            within: config.backend_tls.is_some(),
        })
    }

    /// Hears what a client wants. `tls` is the listener's.
    pub(super) async fn open(self, socket: Socket, tls: Option<&Server>) -> io::Result<(Stream, Wanted)> {
        in_time(async {
            let client = match tls {
                Some(server) if !self.starts => server.accept(socket).await?,
                _ => socket.into(),
            };
            self.hear(client, tls).await
        })
        .await
    }

    async fn hear(self, mut client: Stream, tls: Option<&Server>) -> io::Result<(Stream, Wanted)> {
        for _ in 0..MOST_WORDS {
            let mut head = [0; HEAD];
            client.read_exact(&mut head).await?;
            client = match (Opening::read(head)?, client, tls) {
                (Opening::SslRequest, Stream::Plain(mut socket), Some(server)) => {
                    socket.write_all(&[YES]).await?;
                    server.accept(socket).await?
                }
                (Opening::Tls, Stream::Plain(socket), Some(server)) => {
                    server.accept_after(&head, socket).await?
                }
                // What they agree on goes through unopened.
                (Opening::SslRequest, client @ Stream::Plain(_), None) if !self.within => {
                    return Ok((client, Wanted::Server(Words::new(head.to_vec(), true, true))));
                }
                (Opening::Tls, client @ Stream::Plain(_), None) if !self.within => {
                    return Ok((client, Wanted::Server(Words::new(head.to_vec(), false, false))));
                }
                (Opening::SslRequest | Opening::GssRequest, mut client, _) => {
                    say_no(&mut client).await?;
                    client
                }
                (Opening::Cancel(length), mut client, _) => {
                    let mut key = vec![0; length];
                    client.read_exact(&mut key).await?;
                    let key = CancelKey::read(&key).ok_or(BadOpening::Length(HEAD + length))?;
                    return Ok((client, Wanted::Cancel(key)));
                }
                (Opening::Start(rest), mut client, _) => {
                    // All of it, so that another server can hear it.
                    let mut said = head.to_vec();
                    said.resize(HEAD + rest, 0);
                    client.read_exact(&mut said[HEAD..]).await?;
                    if tls.is_some() && !client.is_tls() && !self.allows_plain {
                        let text = "the sidecar's listener takes no connection without TLS: connect with sslmode=require, or stricter";
                        refuse(&mut client, NOT_AUTHORIZED, text).await;
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "the client does not ask for TLS",
                        ));
                    }
                    return Ok((client, Wanted::Server(Words::new(said, false, true))));
                }
                (Opening::Tls, ..) => return Err(BadOpening::Foreign.into()),
            };
        }
        Err(io::Error::new(io::ErrorKind::InvalidData, "the client asks for encryption again and again"))
    }
}

impl Words {
    fn new(bytes: Vec<u8>, asks_for_tls: bool, understands: bool) -> Self {
        Self { said: Said { bytes, once: false, asks_for_tls }, understands, name: None }
    }
}

/// Tells a client that its server has no TLS, and hears what it wants then.
pub(super) async fn go_on_without_tls(mut client: Stream) -> io::Result<(Stream, Wanted)> {
    in_time(async {
        say_no(&mut client).await?;
        let heard = Manners { starts: false, allows_plain: true, within: true }.hear(client, None).await;
        heard.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), HasLeft),
            _ => error,
        })
    })
    .await
}

/// Whether a client has gone without a word more.
pub(super) fn has_left(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|cause| cause.is::<HasLeft>())
}

#[derive(Debug, thiserror::Error)]
#[error("the client has left after it was told that there is no TLS")]
struct HasLeft;

async fn in_time<T>(heard: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no StartupMessage within 10 s");
    timeout(LIMIT, heard).await.map_err(late)?
}

async fn say_no(client: &mut Stream) -> io::Result<()> {
    client.write_all(&[NO]).await?;
    client.flush().await
}

/// Tells a client that there is no server for it. `reason` is for people.
pub(super) async fn no_server(client: &mut Stream, listener: &str, reason: &str) {
    let text = format!("no server can be reached through the sidecar's listener {listener}: {reason}");
    refuse(client, CANNOT_CONNECT_NOW, &text).await;
}

async fn refuse(client: &mut Stream, code: &str, text: &str) {
    let told = timeout(REFUSING, async {
        client.write_all(&refusal(code, text)).await?;
        client.shutdown().await
    });
    if !matches!(told.await, Ok(Ok(()))) {
        tracing::debug!("a client did not wait for its refusal");
    }
}

impl From<BadOpening> for io::Error {
    fn from(error: BadOpening) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixStream;

    use super::*;

    fn manners(allows_plain: bool) -> Manners {
        Manners { starts: true, allows_plain, within: false }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_say_what_it_wants_is_cut_off() {
        for said in [&b""[..], b"\0\0\0", b"\0\0\0\x10\x04\xd2\x16\x2e\0\0"] {
            let (mut client, socket) = UnixStream::pair().unwrap();
            client.write_all(said).await.unwrap();
            let error = manners(true).open(Socket::Unix(socket), None).await.err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{said:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_asks_for_encryption_again_and_again_is_cut_off() {
        let (mut client, socket) = UnixStream::pair().unwrap();
        client.write_all(&b"\0\0\0\x08\x04\xd2\x16\x30".repeat(5)).await.unwrap();
        let error = manners(true).open(Socket::Unix(socket), None).await.err().unwrap();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let mut answers = Vec::new();
        let _ = client.read_to_end(&mut answers).await;
        assert_eq!(answers, b"NNN");
    }
}
