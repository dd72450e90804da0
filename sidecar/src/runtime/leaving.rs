//! Word ahead of the end: whoever gives it to a socket in the state directory says that the pod is about to end. The kubelet
//! does, by a hook, while the application still serves: a native sidecar gets its SIGTERM only after the application has
//! gone, and its clients must be elsewhere by then.

use std::{
    io::{self, Read, Write},
    os::unix::net,
    path::{Path, PathBuf},
    time::Duration,
};

use crds::units::Address;
use tokio::{
    io::AsyncReadExt,
    net::{UnixListener, UnixStream},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::net::{Listening, bind};

const SOCKET: &str = "leave.sock";

/// A mere connection is no word: another process may only ask whether anyone listens.
const WORD: &[u8] = b"leave\n";

/// Pause after accepting has failed, as it does when descriptors are used up.
const PAUSE: Duration = Duration::from_millis(100);

/// Time for either side to say something.
const LIMIT: Duration = Duration::from_secs(5);

/// Why the word did not arrive.
#[derive(Debug, thiserror::Error)]
#[error("no sidecar takes the word at {path} ({source}); write the --state-dir of one that runs")]
pub(crate) struct LeaveError {
    path: PathBuf,
    source: io::Error,
}

/// Gives the word to the sidecar with this state directory, and waits until it has taken it.
pub(crate) fn tell(state_dir: &Path) -> Result<(), LeaveError> {
    let path = state_dir.join(SOCKET);
    let told = net::UnixStream::connect(&path).and_then(|mut stream| {
        stream.set_write_timeout(Some(LIMIT))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.write_all(WORD)?;
        // The end of the connection says that the word was taken.
        stream.read(&mut [0])
    });
    told.map(drop).map_err(|source| LeaveError { path, source })
}

/// Cancels the token when the word comes. Without the right to the socket nobody can give it, and all else goes on.
pub(super) async fn heed(state_dir: PathBuf, leave: CancellationToken) {
    let path = state_dir.join(SOCKET);
    let (socket, _file) = match bind(&Address::Unix(path.as_path().into())) {
        Ok(Listening::Unix(socket)) => socket.into_parts(),
        Ok(Listening::Tcp(_)) => return,
        Err(error) => {
            let path = path.display();
            return tracing::warn!(%path, %error, "clients cannot be sent away before the end: the socket cannot be made");
        }
    };
    let Ok(socket) = UnixListener::from_std(socket) else { return };
    loop {
        match socket.accept().await {
            Ok((mut stream, _)) => {
                if is_word(&mut stream).await {
                    leave.cancel();
                }
            }
            Err(error) => {
                tracing::debug!(%error, "a word was not accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn is_word(stream: &mut UnixStream) -> bool {
    let mut said = [0; WORD.len()];
    matches!(timeout(LIMIT, stream.read_exact(&mut said)).await, Ok(Ok(_))) && said == WORD
}
