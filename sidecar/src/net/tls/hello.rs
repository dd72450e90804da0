//! What a client's TLS begins with, for who passes it on unopened: the server name that it asks for (SNI).

use std::io;

use rustls::server::Acceptor;
use tokio::io::AsyncReadExt;

use super::explain::explain;
use crate::net::{Socket, buffer::SMALL};

/// The longest ClientHello that is taken, over all its records. Those of browsers have 2 KiB, with certificates in them 4 KiB.
const LONGEST: usize = SMALL;

/// What comes at once.
const PIECE: usize = 2 * 1024;

/// The first byte of a handshake.
const HANDSHAKE: u8 = 0x16;

/// A message of the handshake has its type and length first.
const HEAD: usize = 4;
const CLIENT_HELLO: u32 = 1;

/// The first words of a client.
#[derive(Debug)]
pub struct Hello {
    /// All bytes that were read, which are for the server to hear: a whole ClientHello, or what it is instead.
    pub said: Vec<u8>,
    /// All of it is one ClientHello, on which no server acts but by an answer.
    pub is_alone: bool,
    /// In lower case. None where it asks for none that is valid, names no signature algorithms, or speaks no TLS.
    pub name: Option<String>,
}

impl Hello {
    /// Hears a client out, which takes as long as it does: callers set the limit.
    pub async fn read(socket: &mut Socket) -> io::Result<Self> {
        let (mut acceptor, mut said) = (Acceptor::default(), Vec::with_capacity(PIECE));
        loop {
            let heard = said.len();
            if (&mut *socket).take((LONGEST - heard) as u64).read_buf(&mut said).await? == 0 {
                return Err(if heard == LONGEST { too_long() } else { io::ErrorKind::UnexpectedEof.into() });
            }
            if said.first() != Some(&HANDSHAKE) {
                said.shrink_to_fit();
                return Ok(Self { said, is_alone: false, name: None });
            }
            let mut rest = &said[heard..];
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest)?;
                let name = match acceptor.accept() {
                    Ok(None) => continue,
                    Ok(Some(accepted)) => accepted.client_hello().server_name().map(str::to_ascii_lowercase),
                    // TLS before 1.2, or no name that DNS could have: its server may know what to do with it.
                    Err(_) if message(&said).is_some() => None,
                    Err((error, _)) => {
                        return Err(explain(io::Error::new(io::ErrorKind::InvalidData, error)));
                    }
                };
                said.shrink_to_fit();
                let is_alone = message(&said) == Some(Message::Alone);
                return Ok(Self { said, is_alone, name });
            }
        }
    }
}

/// A whole ClientHello.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Message {
    /// Nothing comes behind it.
    Alone,
    Followed,
}

/// None if it is not whole. It may be cut into records anywhere, its head too.
fn message(mut said: &[u8]) -> Option<Message> {
    let (mut head, mut count) = (0u32, 0);
    while let [HANDSHAKE, _, _, a, b, rest @ ..] = said {
        let (record, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([*a, *b])))?;
        for byte in record.iter().take(HEAD.saturating_sub(count)) {
            head = head << 8 | u32::from(*byte);
        }
        (count, said) = (count + record.len(), rest);
        let size = HEAD + (head & 0x00ff_ffff) as usize;
        if count >= HEAD && head >> 24 != CLIENT_HELLO {
            return None;
        }
        if count >= HEAD && count >= size {
            let alone = count == size && said.is_empty();
            return Some(if alone { Message::Alone } else { Message::Followed });
        }
    }
    None
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: the ClientHello has more than {LONGEST} bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hello_is_whole_and_alone_or_not_however_it_is_cut() {
        let hello = [1, 0, 0, 3, 7, 8, 9];
        let record = |bytes: &[u8]| [&[HANDSHAKE, 3, 1, 0, bytes.len() as u8], bytes].concat();
        for at in 0..=hello.len() {
            let (a, b) = hello.split_at(at);
            let said = [record(a), record(b)].concat();
            let whole = if at == hello.len() { Message::Followed } else { Message::Alone };
            assert_eq!(message(&said), Some(whole), "cut at {at}");
            assert_eq!(message(&[&said[..], &[23]].concat()), Some(Message::Followed));
            let end = record(a).len() - usize::from(at == hello.len());
            assert_eq!(message(&said[..end]), None, "cut at {at}");
        }
        assert_eq!(message(&record(&[hello, hello].concat())), Some(Message::Followed));
        assert_eq!(message(&record(&[2, 0, 0, 0])), None, "of a server");
        assert_eq!(message(&record(&hello)[1..]), None);
        assert_eq!(message(b""), None);
    }
}
