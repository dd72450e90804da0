//! A GET: ask -> judge the status of the answer.

use std::pin::pin;

use bytes::Bytes;
use crds::units::{Address, StatusRange};
use http::{Request, Response, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::Failure;
use crate::net::{Spoken, Stream};

/// What a GET says of who asks.
pub const USER_AGENT: &str = concat!("sidecar/", env!("CARGO_PKG_VERSION"));

/// A GET, and what answers are good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Get {
    pub path: String,
    /// The backend's own address if there is none.
    pub host: Option<String>,
    pub expected: Vec<StatusRange>,
}

impl Get {
    pub(super) async fn run(
        &self,
        stream: Stream,
        spoken: Spoken,
        address: &Address,
    ) -> Result<StatusCode, Failure> {
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
