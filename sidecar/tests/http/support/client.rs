//! A client that sends bytes and reads messages.

use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

use super::{
    in_time,
    wire::{Ended, Message, read_body, read_head},
};

pub(crate) struct Client {
    pub(crate) reader: BufReader<OwnedReadHalf>,
    pub(crate) writer: OwnedWriteHalf,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = in_time("connecting", TcpStream::connect(address)).await.unwrap();
        let (reader, writer) = stream.into_split();
        Self { reader: BufReader::new(reader), writer }
    }

    /// The connection, before anything was read.
    pub(crate) fn into_stream(self) -> TcpStream {
        self.reader.into_inner().reunite(self.writer).unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        in_time("sending", self.writer.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends, unless the other side has closed.
    pub(crate) async fn try_send(&mut self, bytes: &[u8]) -> bool {
        in_time("sending", self.writer.write_all(bytes)).await.is_ok()
    }

    /// Reads the body behind a head.
    pub(crate) async fn skip_body(&mut self, head: Message) {
        self.receive_body(head).await.unwrap();
    }

    /// The body behind a head.
    pub(crate) async fn receive_body(&mut self, mut head: Message) -> Result<Vec<u8>, Ended> {
        in_time("receiving", read_body(&mut self.reader, &mut head)).await?;
        Ok(head.body)
    }

    /// The next response.
    pub(crate) async fn receive(&mut self) -> Result<Message, Ended> {
        in_time("receiving", async {
            let mut message = read_head(&mut self.reader).await?;
            read_body(&mut self.reader, &mut message).await?;
            Ok(message)
        })
        .await
    }

    /// The head of the next response.
    pub(crate) async fn receive_head(&mut self) -> Message {
        self.try_receive_head().await.unwrap()
    }

    /// The same, if it comes.
    pub(crate) async fn try_receive_head(&mut self) -> Result<Message, Ended> {
        in_time("receiving", read_head(&mut self.reader)).await
    }

    pub(crate) async fn get(&mut self, path: &str) -> Message {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n")).await;
        self.receive().await.unwrap()
    }

    pub(crate) async fn post(&mut self, path: &str, body: &str) -> Message {
        let length = body.len();
        self.send(format!("POST {path} HTTP/1.1\r\nHost: app\r\nContent-Length: {length}\r\n\r\n{body}"))
            .await;
        self.receive().await.unwrap()
    }

    /// Asks for this path, and gets an answer that begins and is broken off by a reset.
    pub(crate) async fn receive_broken(mut self, path: &str) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: app\r\n\r\n")).await;
        assert_eq!(self.receive_head().await.status(), 200);
        in_time("the end", self.reader.read_to_end(&mut Vec::new())).await.unwrap_err();
    }

    /// Nothing more comes, and the connection is closed or reset.
    pub(crate) async fn is_closed(&mut self) -> bool {
        in_time("closing", self.reader.read_u8()).await.is_err()
    }
}
