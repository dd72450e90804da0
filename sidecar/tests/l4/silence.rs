//! Those who take nothing in any more, with nothing to tell whether they are still there.

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Sidecar, in_time, until};

/// A connection both ends of which are the test's.
async fn pair(fields: Value) -> (Sidecar, TcpStream, TcpStream) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(fields, &[socket.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    client.write_all(b"x").await.unwrap();
    loop {
        let (mut server, _) = in_time("a connection", socket.accept()).await.unwrap();
        // Checks go without a word.
        if in_time("a byte", server.read(&mut [0])).await.unwrap_or(0) > 0 {
            return (sidecar, client, server);
        }
    }
}

/// Writes until that is an error.
async fn flood(mut stream: TcpStream) {
    let piece = vec![7; 1 << 16];
    while stream.write_all(&piece).await.is_ok() {}
}

#[tokio::test]
async fn what_a_side_does_not_acknowledge_ends_the_connection_after_its_time() {
    for (cause, by_client) in [("BackendBroke", true), ("ClientBroke", false)] {
        let (sidecar, client, server) = pair(json!({"timeouts": {"user": "1s"}})).await;
        let (writer, reader) = if by_client { (client, server) } else { (server, client) };
        in_time("the end", flood(writer)).await;
        let failed = format!("sidecar_tcp_failed_total{{listener=\"db\",cause=\"{cause}\"");
        until(cause, || sidecar.metric(&failed) > 0.5).await;
        drop(reader);
    }
}
