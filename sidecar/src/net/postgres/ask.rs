//! Asking a server for TLS.

use std::io;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::SSL_REQUEST;
use crate::net::Socket;

/// Sends SSLRequest, and takes one byte for an answer: what came behind it in plain text would be believed to have come within
/// TLS. As long as the server takes: callers set the limit.
pub(in crate::net) async fn ask_for_tls(socket: &mut Socket) -> io::Result<()> {
    let request = [8, SSL_REQUEST].map(u32::to_be_bytes);
    socket.write_all(request.as_flattened()).await?;
    let answer = socket.read_u8().await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            told("it closed the connection when it was asked for TLS (SSLRequest)")
        }
        _ => error,
    })?;
    match answer {
        b'S' => Ok(()),
        b'N' => Err(told(
            "the server does not speak TLS (it answered N to SSLRequest): set ssl = on at the server, or remove backendTls",
        )),
        b'E' => Err(told("the server answered SSLRequest with an error: its log says which")),
        _ => Err(told(
            "the server does not speak PostgreSQL (it did not answer SSLRequest): correct the port, or remove startTls",
        )),
    }
}

fn told(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("TLS: {what}"))
}
