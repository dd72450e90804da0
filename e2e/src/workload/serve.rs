//! A backend: answers with its pod's name. Its end is either that of a well-behaved server, or that of a crash.

use std::{env, net::IpAddr, process, sync::Arc};

use bytes::Bytes;
use clap::Args;
use crds::units::Duration;
use http::{Method, Response, StatusCode};
use http_body_util::Full;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{say, server};

#[derive(Debug, Args)]
pub struct Serve {
    /// Address to listen on: 127.0.0.1 is reached within the pod alone.
    #[arg(long, default_value = "0.0.0.0")]
    address: IpAddr,
    /// Port to listen on.
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Listen only after this time.
    #[arg(long, default_value = "0s")]
    delay_start: Duration,
    /// Take this long for each answer, so that requests are in flight at any time.
    #[arg(long, default_value = "0s")]
    delay: Duration,
    /// After SIGTERM serve on for this time, until the endpoint's removal has reached every client; 0s exits at once,
    /// in the middle of requests, as a killed process does.
    #[arg(long, default_value = "5s")]
    drain: Duration,
}

impl Serve {
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let name: Arc<str> = env::var("HOSTNAME").unwrap_or_else(|_| "unnamed".to_owned()).into();
        sleep(self.delay_start.as_std()).await;
        let listener = server::listen((self.address, self.port).into()).await?;
        say(&format!("{name} serves {}:{}", self.address, self.port));
        let (delay, drain) = (self.delay.as_std(), self.drain.as_std());
        let end = CancellationToken::new();
        let drained = end.clone();
        tokio::spawn(async move {
            stop.cancelled().await;
            if drain.is_zero() {
                process::exit(0);
            }
            sleep(drain).await;
            drained.cancel();
        });
        let handler = move |request: http::Request<hyper::body::Incoming>| {
            let name = name.clone();
            async move {
                match (request.method(), request.uri().path()) {
                    (&Method::GET | &Method::HEAD, "/healthz") => answer(StatusCode::OK, &name, "ok"),
                    (&Method::POST, "/crash") => process::exit(1),
                    (&Method::GET | &Method::HEAD, _) => {
                        sleep(delay).await;
                        answer(StatusCode::OK, &name, &name)
                    }
                    _ => answer(StatusCode::METHOD_NOT_ALLOWED, &name, "only GET, and POST /crash"),
                }
            }
        };
        server::serve(listener, None, end, handler).await;
        Ok(())
    }
}

fn answer(status: StatusCode, name: &str, body: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::copy_from_slice(body.as_bytes())));
    *response.status_mut() = status;
    if let Ok(value) = name.parse() {
        response.headers_mut().insert("x-served-by", value);
    }
    response
}
