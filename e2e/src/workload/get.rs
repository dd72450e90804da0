//! A client that keeps one connection, and the command that uses it once.

use std::{process::ExitCode, time::Duration as StdDuration};

use anyhow::{Context, bail};
use bytes::Bytes;
use clap::Args;
use crds::units::Duration;
use http::{Request, StatusCode, Uri, header::HOST};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::timeout};

/// Longest body read; the rest of a longer one is an error.
const MAX_BODY: usize = 1 << 20;

#[derive(Debug, Args)]
pub struct Get {
    /// What to ask for, as in http://127.0.0.1:9000/.
    url: Uri,
    /// Give up after this time.
    #[arg(long, default_value = "10s")]
    timeout: Duration,
}

impl Get {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (status, body) = Client::new(self.url)?.get(self.timeout.as_std()).await?;
        super::print(&format!("{} {body}", status.as_u16()))?;
        Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

/// Sends GETs over one connection and opens another when that has ended.
pub(super) struct Client {
    url: Uri,
    authority: String,
    address: String,
    sender: Option<SendRequest<Empty<Bytes>>>,
    reconnects: bool,
}

impl Client {
    pub(super) fn new(url: Uri) -> anyhow::Result<Self> {
        let authority =
            url.authority().with_context(|| format!("{url} has no host; write http://host:port/path"))?;
        if url.scheme_str() != Some("http") {
            bail!("{url} is not http; write http://host:port/path");
        }
        let host = authority.host();
        let address = format!("{host}:{}", authority.port_u16().unwrap_or(80));
        let authority = authority.to_string();
        Ok(Self { url, authority, address, sender: None, reconnects: false })
    }

    /// Whether each request gets a connection of its own.
    pub(super) fn reconnecting(self, reconnects: bool) -> Self {
        Self { reconnects, ..self }
    }

    pub(super) async fn get(&mut self, limit: StdDuration) -> anyhow::Result<(StatusCode, String)> {
        let answer =
            timeout(limit, self.exchange()).await.unwrap_or_else(|_| bail!("no answer within {limit:?}"));
        if answer.is_err() || self.reconnects {
            self.sender = None;
        }
        answer
    }

    /// A request that was certainly not sent, because the server had closed the idle connection, goes over a new one:
    /// any client does that. A request that may have been sent is never sent again.
    async fn exchange(&mut self) -> anyhow::Result<(StatusCode, String)> {
        let mut request = self.request()?;
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(response) => return read(response).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(error.into_error()).context("the connection ended before an answer"),
                },
            }
        }
        let sender = self.sender.insert(connect(&self.address).await?);
        let response = sender.send_request(request).await.context("the connection ended before an answer")?;
        read(response).await
    }

    fn request(&self) -> anyhow::Result<Request<Empty<Bytes>>> {
        let target = self.url.path_and_query().map_or("/", |path| path.as_str());
        Request::get(target)
            .header(HOST, &self.authority)
            .body(Empty::new())
            .context("cannot write the request")
    }
}

async fn connect(address: &str) -> anyhow::Result<SendRequest<Empty<Bytes>>> {
    let stream = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its errors reach the request that they hit.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read(response: http::Response<hyper::body::Incoming>) -> anyhow::Result<(StatusCode, String)> {
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY)
        .collect()
        .await
        .map_err(|error| anyhow::anyhow!("the body broke off: {error}"))?
        .to_bytes();
    Ok((status, String::from_utf8_lossy(&body).trim_end().to_owned()))
}
