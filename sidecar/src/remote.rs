//! A request of the sidecar's own to a server elsewhere: look up -> connect -> ask -> read the answer, all within one limit
//! of time and one of bytes. Runs on the control runtime; no request of a client waits for it.

use std::{fmt, io, net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use crds::units::{Address, HttpUrl};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    discovery::dns::{Lookup, LookupError},
    net::{
        self, Stream, Target,
        tls::{Client, Peer},
    },
};

/// Addresses of one name that are tried, one after the other.
const MOST_ADDRESSES: usize = 3;

/// A server, and how it is met.
pub struct Remote {
    url: HttpUrl,
    tls: Option<Arc<Client>>,
    dns: Arc<dyn Lookup>,
}

/// What is asked of it.
#[derive(Debug, Clone)]
pub struct Ask {
    pub method: Method,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Time for all of it.
    pub limit: Duration,
    /// Bytes of the answer's body, at most.
    pub most: usize,
}

/// Why there is no answer. Names no header, since those may be secret.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error("the name {host} has no address: {source}")]
    Lookup { host: String, source: LookupError },
    #[error("cannot connect ({0}); check the URL, and that the pod may reach it")]
    Connect(#[source] io::Error),
    #[error("the request failed ({0}); check that the URL is that of an HTTP server")]
    Http(#[source] hyper::Error),
    #[error("the answer broke off ({0})")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    #[error("it answered {0}; check the URL")]
    Status(StatusCode),
    #[error("its answer has more than {0} bytes; check the URL")]
    TooLong(usize),
    #[error("it did not answer within {} s", .0.as_secs_f32())]
    TimedOut(Duration),
    #[error("the request cannot be made ({0}); correct the headers")]
    Request(#[from] http::Error),
}

impl Remote {
    /// `tls` is how an https URL is met.
    pub fn new(url: HttpUrl, tls: Option<Arc<Client>>, dns: Arc<dyn Lookup>) -> Self {
        Self { url, tls, dns }
    }

    pub fn url(&self) -> &HttpUrl {
        &self.url
    }

    /// The body of a good answer.
    pub async fn ask(&self, ask: Ask) -> Result<Bytes, RemoteError> {
        let limit = ask.limit;
        timeout(limit, self.run(ask)).await.map_err(|_| RemoteError::TimedOut(limit))?
    }

    async fn run(&self, ask: Ask) -> Result<Bytes, RemoteError> {
        let stream = self.connect(ask.limit).await?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(RemoteError::Http)?;
        let _driver = AbortOnDropHandle::new(tokio::spawn(connection));
        let mut request = Request::builder().method(ask.method).uri(self.url.path());
        if let Some(headers) = request.headers_mut() {
            *headers = ask.headers;
            headers.insert(
                header::HOST,
                HeaderValue::from_str(self.url.authority()).map_err(http::Error::from)?,
            );
            let agent = HeaderValue::from_static(concat!("sidecar/", env!("CARGO_PKG_VERSION")));
            headers.entry(header::USER_AGENT).or_insert(agent);
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let request = request.body(Full::new(ask.body))?;
        let response = sender.send_request(request).await.map_err(RemoteError::Http)?;
        if !response.status().is_success() {
            return Err(RemoteError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), ask.most).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                RemoteError::TooLong(ask.most)
            } else {
                RemoteError::Body(error)
            }
        })?;
        Ok(body.to_bytes())
    }

    async fn connect(&self, limit: Duration) -> Result<Stream, RemoteError> {
        let host = self.url.host();
        let addresses: Vec<IpAddr> = match host.parse() {
            Ok(address) => vec![address],
            Err(_) => {
                let found = self.dns.lookup(host, &[]).await;
                found.map_err(|source| RemoteError::Lookup { host: host.to_owned(), source })?.addresses
            }
        };
        let mut last = io::Error::other("the name has no address");
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            let address = Address::from((address, self.url.port()));
            let peer = self.tls.as_ref().map(|client| Peer::new(Arc::clone(client), &address, Some(host)));
            match net::connect(Target::new(&address, peer.as_ref()), &[b"http/1.1"], &[], limit).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(RemoteError::Connect(last))
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Remote").field(&self.url).finish()
    }
}
