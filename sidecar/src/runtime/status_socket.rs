//! Whether there is a live backend, told to whoever connects to a Unix socket and sends a byte: HEALTHY or UNHEALTHY. For
//! health checks of containers that know SideLB's.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crds::units::Address;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};

use crate::{
    l4,
    net::{self, Listening},
};

pub(crate) const HEALTHY: &str = "HEALTHY";
const UNHEALTHY: &str = "UNHEALTHY";

/// Time for whoever asks.
const LIMIT: Duration = Duration::from_secs(2);
/// Pause after accepting has failed, as it does when descriptors are used up.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers until it is dropped. Without the right to the socket nobody can ask, and all else goes on.
pub(super) async fn serve(path: PathBuf, metrics: Arc<l4::Metrics>) {
    let bound = net::bind(&Address::Unix(path.as_path().into()));
    let socket = match bound {
        Ok(Listening::Unix(socket)) => socket,
        Ok(Listening::Tcp(_)) => return,
        Err(error) => {
            let path = path.display();
            tracing::warn!(%path, %error, "--health-check-uds will not be answered: the socket cannot be made");
            return;
        }
    };
    let (socket, _file) = socket.into_parts();
    let Ok(socket) = UnixListener::from_std(socket) else { return };
    loop {
        match socket.accept().await {
            // One after the other: nobody asks often, and nobody may take long.
            Ok((stream, _)) => drop(timeout(LIMIT, answer(stream, metrics.is_live())).await),
            Err(error) => {
                tracing::debug!(%error, "a health check was not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn answer(mut stream: UnixStream, live: bool) -> std::io::Result<()> {
    // An end instead of the byte is a question too.
    let _question = stream.read(&mut [0]).await?;
    let answer = if live { HEALTHY } else { UNHEALTHY };
    stream.write_all(format!("{answer}\n").as_bytes()).await?;
    stream.shutdown().await
}
