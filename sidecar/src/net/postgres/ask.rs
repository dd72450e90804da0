//! Asking a server for TLS.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{HEAD, NO, SSL_REQUEST, YES};
use crate::net::Socket;

/// Sends SSLRequest, and takes one byte for an answer: what came behind it in plain text would be believed to have come within
/// TLS. As long as the server takes: callers set the limit.
pub async fn request_tls(server: &mut (impl AsyncRead + AsyncWrite + Unpin)) -> io::Result<u8> {
    let request = [HEAD as u32, SSL_REQUEST].map(u32::to_be_bytes);
    server.write_all(request.as_flattened()).await?;
    server.read_u8().await.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            told("it closed the connection when it was asked for TLS (SSLRequest)")
        }
        _ => error,
    })
}

/// Has a server begin with TLS.
pub(in crate::net) async fn ask_for_tls(socket: &mut Socket) -> io::Result<()> {
    match request_tls(socket).await? {
        YES => Ok(()),
        NO => Err(told(
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
