//! `operator probe URL`: asks a plain-HTTP address until it answers 200 or the time is up. For tests in an image that
//! has no shell.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, StatusCode, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time};

const TOTAL: Duration = Duration::from_secs(30);
const PER_TRY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_secs(1);
const BODY: usize = 64 * 1024;

/// Why an address did not answer 200.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    #[error("{url} is not a URL of plain HTTP; write it like http://service.namespace.svc:8080/readyz")]
    Url { url: Uri },
    #[error("{url} did not answer within {PER_TRY:?}")]
    Timeout { url: Uri },
    #[error("{url} cannot be reached")]
    Unreachable { url: Uri, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{url} answered {status}: {body}")]
    Status { url: Uri, status: StatusCode, body: String },
}

/// Asks `url` once a second until it answers 200; gives the last error after 30 s. Returns the body.
pub async fn probe(url: &Uri) -> Result<String, ProbeError> {
    let deadline = time::Instant::now() + TOTAL;
    loop {
        let outcome = match time::timeout(PER_TRY, ask(url)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(ProbeError::Timeout { url: url.clone() }),
        };
        match outcome {
            Err(error)
                if !matches!(error, ProbeError::Url { .. }) && time::Instant::now() + PAUSE < deadline =>
            {
                tracing::debug!(%error, "not yet");
                time::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

async fn ask(url: &Uri) -> Result<String, ProbeError> {
    let (Some("http"), Some(host)) = (url.scheme_str(), url.host()) else {
        return Err(ProbeError::Url { url: url.clone() });
    };
    let unreachable = |source: Box<dyn std::error::Error + Send + Sync>| ProbeError::Unreachable {
        url: url.clone(),
        source,
    };
    let port = url.port_u16().unwrap_or(80);
    let stream =
        TcpStream::connect((host.trim_matches(['[', ']']), port)).await.map_err(|e| unreachable(e.into()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| unreachable(e.into()))?;
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, url.authority().map_or(host, |authority| authority.as_str()))
        .body(Empty::<Bytes>::new())
        .map_err(|e| unreachable(e.into()))?;
    let exchange = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), BODY).collect().await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    };
    let (status, body) = tokio::select! {
        answer = exchange => answer.map_err(unreachable)?,
        Err(error) = connection => return Err(unreachable(error.into())),
    };
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(ProbeError::Status { url: url.clone(), status, body })
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers one connection after the other with these statuses.
    async fn server(statuses: &'static [&'static str]) -> Uri {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/readyz", listener.local_addr().unwrap()).parse().unwrap();
        tokio::spawn(async move {
            for status in statuses {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 1024]).await.unwrap();
                let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 4\r\n\r\nbody");
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        url
    }

    #[tokio::test]
    async fn a_server_that_is_ready_is_found_ready() {
        assert_eq!(probe(&server(&["200 OK"]).await).await.unwrap(), "body");
    }

    #[tokio::test]
    async fn another_answer_is_an_error_that_shows_it() {
        let error = ask(&server(&["503 Service Unavailable"]).await).await.unwrap_err();
        assert!(error.to_string().ends_with("answered 503 Service Unavailable: body"), "{error}");
    }

    #[tokio::test]
    async fn only_plain_http_is_asked() {
        for url in ["https://localhost/", "/readyz"] {
            assert!(matches!(probe(&url.parse().unwrap()).await, Err(ProbeError::Url { .. })), "{url}");
        }
    }
}
