//! A body that is made as it is sent, and compared as it is received: gigabytes without memory.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use anyhow::{Context as _, Result, ensure};
use aws_sdk_s3::primitives::ByteStream;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// 1 GiB: more than a hundred times what the sidecar has in memory.
pub(crate) const LENGTH: u64 = 1 << 30;

/// A length that divides no power of two, so that a piece in the wrong place is seen.
const PERIOD: usize = 65_521;

/// The bytes of a number of periods, one after the other.
pub(crate) struct Pattern {
    period: Bytes,
    at: u64,
    length: u64,
}

impl Pattern {
    pub(crate) fn of(length: u64) -> Self {
        Self { period: period(), at: 0, length }
    }
}

impl Body for Pattern {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let left = self.length - self.at;
        if left == 0 {
            return Poll::Ready(None);
        }
        let part = self.period.slice(..left.min(PERIOD as u64) as usize);
        self.at += part.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(part))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.length - self.at)
    }
}

fn period() -> Bytes {
    (0..PERIOD as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Reads to the end: the length, if all of it was the pattern.
pub(crate) async fn compare(mut body: ByteStream) -> Result<u64> {
    let period = period();
    let twice = [&period[..], &period[..]].concat();
    let mut length = 0_u64;
    while let Some(part) = body.try_next().await? {
        let mut rest = &part[..];
        while !rest.is_empty() {
            let from = (length % PERIOD as u64) as usize;
            let (now, later) = rest.split_at(rest.len().min(PERIOD));
            ensure!(now == &twice[from..from + now.len()], "other bytes after {length}");
            length += now.len() as u64;
            rest = later;
        }
    }
    Ok(length)
}

/// GET of a URL by a client that knows nothing of S3: status and body.
pub(crate) async fn fetch(url: &str) -> Result<(u16, Vec<u8>)> {
    let url: http::Uri = url.parse()?;
    let authority = url.authority().context("the URL has no host")?.to_string();
    let stream = TcpStream::connect(&authority).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let path = url.path_and_query().context("the URL has no path")?.as_str();
    let request = http::Request::get(path).header("host", authority).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes().to_vec()))
}
