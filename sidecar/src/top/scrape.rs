//! One GET of /metrics: connect -> ask -> the whole page, within a time and a size.

use std::{io, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

use super::{address::AdminAddress, exposition::ExpositionError, reading::Reading};
use crate::discovery::dns::{Lookup, LookupError, SystemDns};

/// Time for all of it.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Sixteen listeners with a thousand backends each stay below it.
const MAX_PAGE: usize = 64 * 1024 * 1024;

/// Why there is no reading.
#[derive(Debug, thiserror::Error)]
pub enum ScrapeError {
    #[error("connection refused")]
    Refused,
    #[error("cannot connect ({0})")]
    Connect(io::Error),
    #[error("the name cannot be resolved: {0}")]
    Lookup(#[from] LookupError),
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut,
    #[error("the answer broke off ({0})")]
    Broken(String),
    #[error("the answer is {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Page(#[from] ExpositionError),
    #[error("the answer has no series of a sidecar")]
    Foreign,
}

/// Asks one sidecar, again and again.
pub(super) struct Scraper {
    pub(super) address: AdminAddress,
    dns: SystemDns,
}

impl Scraper {
    pub(super) fn new(address: AdminAddress) -> Self {
        Self { address, dns: SystemDns::default() }
    }

    pub(super) async fn read(&self) -> Result<Reading, ScrapeError> {
        let page = timeout(TIMEOUT, self.page()).await.map_err(|_| ScrapeError::TimedOut)??;
        let reading = Reading::parse(&page)?;
        if reading.version.is_none() { Err(ScrapeError::Foreign) } else { Ok(reading) }
    }

    async fn page(&self) -> Result<String, ScrapeError> {
        let broken = |error: &dyn std::error::Error| ScrapeError::Broken(error.to_string());
        let stream = self.connect().await?;
        let host = self.address.to_string();
        let request = Request::get("/metrics")
            .header(header::HOST, host.trim_start_matches("http://"))
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(&error))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
        let answer = async {
            let response = sender.send_request(request).await.map_err(|error| broken(&error))?;
            if response.status() != StatusCode::OK {
                return Err(ScrapeError::Status(response.status()));
            }
            let body = Limited::new(response.into_body(), MAX_PAGE).collect().await.map_err(|error| {
                match error.downcast::<LengthLimitError>() {
                    Ok(_) => ScrapeError::Foreign,
                    Err(error) => broken(error.as_ref()),
                }
            })?;
            String::from_utf8(body.to_bytes().into()).map_err(|error| broken(&error))
        };
        // The connection moves the answer along; its own error is the answer's too.
        let (answer, _) = tokio::join!(answer, connection);
        answer
    }

    async fn connect(&self) -> Result<TcpStream, ScrapeError> {
        let (host, port) = (self.address.host(), self.address.port());
        let addresses = match host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.dns.lookup(host, &[]).await?.addresses,
        };
        let mut failure = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for ip in addresses {
            match TcpStream::connect(SocketAddr::new(ip, port)).await {
                Ok(stream) => return Ok(stream),
                Err(error) => failure = error,
            }
        }
        Err(match failure.kind() {
            io::ErrorKind::ConnectionRefused => ScrapeError::Refused,
            _ => ScrapeError::Connect(failure),
        })
    }
}
