//! Objects as long as uploads in one piece may be: they go through as they are, in memory that does not know how long they are.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Instant,
};

use tokio::task::spawn_blocking;

use crate::support::Sidecar;

/// As S3 takes it in one piece.
const LONG: u64 = 5 << 30;

/// Buffers of the few connections, and what the allocator keeps, in MiB.
const FLAT: usize = 16;

/// After so many bytes objects repeat themselves: a prime, so that no piece fits at another place, whatever the buffers.
const PERIOD: usize = 1_048_573;

fn pattern() -> Vec<u8> {
    (0..PERIOD as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// Sends so many bytes of the endless object.
fn give(stream: &mut impl Write, length: u64) {
    let pattern = pattern();
    let mut left = length;
    while left > 0 {
        let piece = left.min(PERIOD as u64) as usize;
        stream.write_all(&pattern[..piece]).unwrap();
        left -= piece as u64;
    }
}

/// Takes so many bytes, which must be those of the endless object.
fn take(stream: &mut impl Read, length: u64) {
    let (pattern, mut buffer) = (pattern(), vec![0; 256 * 1024]);
    let (mut at, mut left) = (0, length);
    while left > 0 {
        let most = buffer.len().min(PERIOD - at).min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = stream.read(&mut buffer[..most]).unwrap();
        assert!(count > 0, "{left} bytes are missing");
        assert!(buffer[..count] == pattern[at..at + count], "other bytes {left} before the end");
        at = (at + count) % PERIOD;
        left -= count as u64;
    }
}

/// The first line of a head and the length that it tells.
fn head(reader: &mut impl BufRead) -> Option<(String, u64)> {
    let (mut first, mut length) = (String::new(), 0);
    if !matches!(reader.read_line(&mut first), Ok(1..)) {
        return None;
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.to_ascii_lowercase().trim_end().split_once(": ") {
            Some(("content-length", value)) => length = value.parse().unwrap(),
            Some(_) => {}
            None => return Some((first, length)),
        }
    }
}

/// Takes and gives long objects; all else, as checks are, has none.
fn backend() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve(stream.unwrap()));
        }
    });
    address
}

fn serve(stream: TcpStream) {
    let mut writer = stream.try_clone().unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((first, length)) = head(&mut reader) {
        take(&mut reader, length);
        let length = if first.starts_with("GET /long ") { LONG } else { 0 };
        if write!(writer, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n").is_err() {
            return;
        }
        give(&mut writer, length);
    }
}

/// Sends so many bytes and takes the answer, which has so many.
fn ask(address: SocketAddr, method: &str, sent: u64, wanted: u64) {
    let mut stream = TcpStream::connect(address).unwrap();
    let start = Instant::now();
    write!(stream, "{method} /long HTTP/1.1\r\nHost: a\r\nContent-Length: {sent}\r\n\r\n").unwrap();
    give(&mut stream, sent);
    let mut reader = BufReader::new(stream);
    let (first, length) = head(&mut reader).unwrap();
    assert_eq!((first.trim_end(), length), ("HTTP/1.1 200 OK", wanted));
    take(&mut reader, length);
    eprintln!("{method} of {} MiB: {:?}", (sent + wanted) >> 20, start.elapsed());
}

#[tokio::test]
async fn five_gibibytes_go_each_way_in_flat_memory() {
    let sidecar = Sidecar::start(&[backend()]).await;
    let (address, before) = (sidecar.address, sidecar.resident());
    for (method, sent, wanted) in [("PUT", LONG, 0), ("GET", 0, LONG)] {
        spawn_blocking(move || ask(address, method, sent, wanted)).await.unwrap();
        let peak = sidecar.peak();
        eprintln!("{before} MiB before, {peak} at most");
        assert!(peak <= before + FLAT, "{method}: {peak} of {before} MiB");
    }
}
