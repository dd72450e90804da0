//! HTTP/1.1 messages as bytes, read by the letter.

use tokio::{
    io::{AsyncReadExt, BufReader},
    net::tcp::OwnedReadHalf,
};

/// A request or a response. Headers are kept as lines, in lower case up to the colon, without the space around their values.
#[derive(Debug, Clone, Default)]
pub(crate) struct Message {
    pub(crate) start: String,
    pub(crate) headers: Vec<String>,
    /// Without the framing of chunks.
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Vec<String>,
    pub(crate) chunked: bool,
}

impl Message {
    pub(crate) fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

/// Why no message could be read.
#[derive(Debug)]
pub(crate) enum Ended {
    /// Closed before the first byte.
    Closed,
    /// Ended or reset in the middle.
    CutShort,
}

/// Reads a head and nothing of the body.
pub(crate) async fn read_head(reader: &mut BufReader<OwnedReadHalf>) -> Result<Message, Ended> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match reader.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) if head.is_empty() => return Err(Ended::Closed),
            Err(_) => return Err(Ended::CutShort),
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let mut lines = head.trim_end().split("\r\n");
    let start = lines.next().unwrap_or_default().to_owned();
    let headers = lines.map(|line| match line.split_once(':') {
        Some((name, value)) => format!("{}: {}", name.to_ascii_lowercase(), value.trim_matches([' ', '\t'])),
        None => line.to_owned(),
    });
    Ok(Message { start, headers: headers.collect(), ..Message::default() })
}

/// Reads the body that the head announces.
pub(crate) async fn read_body(
    reader: &mut BufReader<OwnedReadHalf>,
    message: &mut Message,
) -> Result<(), Ended> {
    if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        message.chunked = true;
        return read_chunks(reader, message).await;
    }
    let length = message.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    message.body = vec![0; length];
    reader.read_exact(&mut message.body).await.map(drop).map_err(|_| Ended::CutShort)
}

async fn read_chunks(reader: &mut BufReader<OwnedReadHalf>, message: &mut Message) -> Result<(), Ended> {
    loop {
        let line = read_line(reader).await?;
        let size = line.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| Ended::CutShort)?;
        if size == 0 {
            break;
        }
        let mut chunk = vec![0; size];
        reader.read_exact(&mut chunk).await.map_err(|_| Ended::CutShort)?;
        message.body.extend(chunk);
        read_line(reader).await?;
    }
    loop {
        match read_line(reader).await? {
            line if line.is_empty() => return Ok(()),
            line => message.trailers.push(line),
        }
    }
}

async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Result<String, Ended> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        line.push(reader.read_u8().await.map_err(|_| Ended::CutShort)?);
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}
