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

/// The first words of a client.
#[derive(Debug)]
pub struct Hello {
    /// All bytes that were read, which are for the server to hear: a whole ClientHello, or what it is instead.
    pub said: Vec<u8>,
    /// In lower case. None where it asks for none, or speaks no TLS.
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
                return Ok(Self { said, name: None });
            }
            let mut rest = &said[heard..];
            while !rest.is_empty() {
                acceptor.read_tls(&mut rest)?;
                let accepted = acceptor
                    .accept()
                    .map_err(|(error, _)| explain(io::Error::new(io::ErrorKind::InvalidData, error)))?;
                if let Some(accepted) = accepted {
                    let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                    return Ok(Self { said, name });
                }
            }
        }
    }
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: the ClientHello has more than {LONGEST} bytes"))
}
