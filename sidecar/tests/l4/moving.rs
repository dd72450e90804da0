//! Bytes arrive as they were sent, whatever their number, in both directions at once.

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::support::{Backend, Sidecar, in_time};

/// Bytes that are different at each place.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 31 + place / 251) as u8).collect()
}

#[tokio::test]
async fn bytes_of_any_number_come_back_as_they_were_sent() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    // Below a buffer, a buffer and around it, where pipes begin, and far beyond.
    for length in [1, 64, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 256 * 1024, 300_000, 9_000_001] {
        let (stream, _) = sidecar.greeted().await;
        let (mut read, mut write) = stream.into_split();
        let sent = bytes(length);
        let expected = sent.clone();
        let sending = tokio::spawn(async move {
            write.write_all(&sent).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        in_time("the echo", read.read_to_end(&mut received)).await.unwrap();
        sending.await.unwrap();
        assert!(received == expected, "{length} bytes came back as {} others", received.len());
    }
    assert!(sidecar.metric("sidecar_tcp_sent_bytes") >= 9_000_001.0);
    assert!((sidecar.metric("sidecar_tcp_failed")).abs() < 0.5, "every connection ended in order");
}

#[tokio::test]
async fn small_messages_go_on_at_once_after_large_ones() {
    let backend = Backend::start(b'a').await;
    let sidecar = Sidecar::start(json!({}), &[backend.address]).await;
    let (mut stream, _) = sidecar.greeted().await;
    for round in 0..4 {
        let (mut read, mut write) = stream.split();
        let large = bytes(2_000_000);
        let mut echoed = vec![0; large.len()];
        let (sent, got) = tokio::join!(write.write_all(&large), read.read_exact(&mut echoed));
        sent.unwrap();
        got.unwrap();
        assert!(echoed == large, "round {round}");
        for message in 0..50u8 {
            write.write_all(&[message; 64]).await.unwrap();
            let mut answer = [0; 64];
            in_time("an answer", read.read_exact(&mut answer)).await.unwrap();
            assert_eq!(answer, [message; 64]);
        }
    }
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer_and_nothing_is_kept() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(json!({}), &[socket.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    let mut server = accept(&socket).await;
    let piece = vec![7; 1 << 20];
    let mut written = 0;
    // Sockets and pipes hold some megabytes, and not a gigabyte.
    while let Ok(count) =
        tokio::time::timeout(std::time::Duration::from_millis(300), client.write(&piece)).await
    {
        written += count.unwrap();
        assert!(written < 1 << 28, "the writer was never stopped");
    }
    let reading = tokio::spawn(async move {
        let mut total = 0;
        let mut buffer = vec![0; 1 << 20];
        loop {
            match server.read(&mut buffer).await.unwrap() {
                0 => return total,
                count => total += count,
            }
        }
    });
    client.shutdown().await.unwrap();
    assert_eq!(in_time("the rest", reading).await.unwrap(), written);
}

#[tokio::test]
async fn after_a_reader_that_stopped_each_byte_goes_on_at_once_again() {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sidecar = Sidecar::start(json!({}), &[socket.local_addr().unwrap()]).await;
    let mut client = sidecar.connect().await;
    let mut server = accept(&socket).await;
    let piece = vec![7; 1 << 20];
    for round in 0..2 {
        let mut written = 0;
        while let Ok(count) =
            tokio::time::timeout(std::time::Duration::from_millis(300), client.write(&piece)).await
        {
            written += count.unwrap();
        }
        let mut large = vec![0; written];
        in_time("what was written", server.read_exact(&mut large)).await.unwrap();
        for byte in 0..10 {
            client.write_all(&[byte]).await.unwrap();
            let got = in_time("a byte", server.read_u8()).await.unwrap();
            assert_eq!(got, byte, "round {round}");
        }
    }
}

/// The connection of a client: checks connect too, and go without a word.
async fn accept(socket: &TcpListener) -> TcpStream {
    loop {
        let (stream, _) = in_time("a connection", socket.accept()).await.unwrap();
        let mut byte = [0];
        // A check has ended by the time that this is asked, or ends soon.
        match tokio::time::timeout(std::time::Duration::from_millis(500), stream.peek(&mut byte)).await {
            Ok(Ok(0)) | Ok(Err(_)) => {}
            _ => return stream,
        }
    }
}
