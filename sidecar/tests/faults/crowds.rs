//! Clients that are too many, too slow or too loud, and a sidecar without descriptors: whoever behaves is served meanwhile, and all is given back
//! afterwards.

use std::{net::SocketAddr, time::Duration};

use futures::{StreamExt, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{interval, timeout},
};

use crate::support::{Backend, Load, Sidecar, get, run, until};

const CLIENTS: usize = 4;
const WELL: usize = 300;
const PATIENCE: Duration = Duration::from_secs(60);
/// What the allocator may keep of what it was given back, in MiB.
const KEPT: usize = 64;

const CROWD: usize = 20_000;
/// Clients that misbehave.
const BAND: usize = 200;
/// Enough for the crowd on either side of it: the sidecar keeps a part for backends, discovery and logs.
const DESCRIPTORS: u64 = 65_536;

/// All at once where a process may have 64 Ki descriptors; else in waves of what the sidecar takes in with those that it may have.
#[tokio::test]
async fn twenty_thousand_connections_are_served_and_all_is_given_back() {
    let descriptors = rlimit::increase_nofile_limit(DESCRIPTORS).unwrap();
    let wave = CROWD.min(descriptors as usize * 3 / 8 - 4 * CLIENTS);
    let backend = Backend::start().await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let (descriptors, resident) = at_rest(&sidecar).await;
    for first in (0..CROWD).step_by(wave) {
        let count = wave.min(CROWD - first);
        // From two addresses, since one has not so many ports.
        let arrivals = (0..count).map(|n| arrive([127, 0, 0, 2 + (n % 2) as u8], sidecar.address));
        let crowd: Vec<Option<TcpStream>> = stream::iter(arrivals).buffer_unordered(128).collect().await;
        let served = crowd.iter().flatten().count();
        assert!(sidecar.descriptors() >= served);
        let load = Load::start(sidecar.address, CLIENTS);
        load.serves(WELL).await;
        let tally = load.stop(&format!("beside {count} connections")).await;
        let full = sidecar.resident();
        eprintln!("{count} connections: {resident} MiB before, {full} with them");
        drop(crowd);
        assert_eq!((served, tally.before, tally.after, tally.lied), (count, 0, 0, 0), "{tally:?}");
        assert!(full < resident + wave * 24 / 1024, "24 KiB a connection: {full} of {resident} MiB");
    }
    sidecar.descriptors_fall_to(descriptors).await;
    let (_, after) = at_rest(&sidecar).await;
    assert!(after <= resident + KEPT, "{after} MiB of {resident} MiB");
}

#[tokio::test]
async fn heads_that_never_end_are_cut_off_and_delay_no_one() {
    let backend = Backend::start().await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let load = Load::start(sidecar.address, CLIENTS);
    let mut band = JoinSet::new();
    for _ in 0..BAND {
        band.spawn(trickle(sidecar.address));
    }
    load.serves(WELL).await;
    let tally = load.stop("beside 200 heads at a byte in two seconds").await;
    let mut cut = 0;
    while let Some(ended) = band.join_next().await {
        cut += usize::from(ended.unwrap());
    }
    assert_eq!((tally.before, tally.after, tally.lied, cut), (0, 0, 0, BAND), "{tally:?}");
    assert_eq!(backend.requests(), tally.good, "no half request went on");
}

#[tokio::test]
async fn clients_that_do_not_read_delay_no_one_and_cost_little() {
    let backend = Backend::start().await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    assert!(get(sidecar.address).await);
    let (descriptors, resident) = at_rest(&sidecar).await;
    let mut band = Vec::new();
    for _ in 0..BAND {
        let mut stream = TcpStream::connect(sidecar.address).await.unwrap();
        for _ in 0..100 {
            stream.write_all(b"GET /object HTTP/1.1\r\nHost: faults\r\n\r\n").await.unwrap();
        }
        band.push(stream);
    }
    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    let tally = load.stop("beside 200 clients that do not read").await;
    let full = sidecar.resident();
    drop(band);
    sidecar.descriptors_fall_to(descriptors).await;
    let (_, after) = at_rest(&sidecar).await;
    eprintln!("200 clients that do not read: {resident} MiB before, {full} with them, {after} after");
    assert_eq!((tally.before, tally.after, tally.lied), (0, 0, 0), "{tally:?}");
    assert!(full < resident + 200, "1 MiB a connection: {full} of {resident} MiB");
    assert!(after <= resident + KEPT, "{after} MiB of {resident} MiB");
}

#[tokio::test]
async fn heads_without_bounds_are_refused_and_cost_little() {
    let backend = Backend::start().await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    let resident = sidecar.resident();
    let mut band = JoinSet::new();
    for n in 0..BAND {
        band.spawn(bomb(sidecar.address, n));
    }
    let mut refused = 0;
    while let Some(ended) = band.join_next().await {
        refused += usize::from(ended.unwrap());
    }
    let full = sidecar.resident();
    load.serves(WELL).await;
    let tally = load.stop("beside 200 heads of many megabytes").await;
    eprintln!("heads without bounds: {resident} MiB before, {full} after");
    assert_eq!((tally.before, tally.after, tally.lied, refused), (0, 0, 0, BAND), "{tally:?}");
    assert_eq!(backend.requests(), tally.good, "no bomb went on");
    assert!(full <= resident + KEPT, "{full} MiB of {resident} MiB");
}

#[tokio::test]
async fn when_descriptors_were_exhausted_all_is_well_as_soon_as_there_are_some() {
    let backend = Backend::start().await;
    let mut sidecar = Sidecar::start(&[backend.address]).await;
    let (descriptors, resident) = at_rest(&sidecar).await;

    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    let id = sidecar.id().to_string();
    let soft = format!("--nofile={}:", sidecar.descriptors() + 8);
    run("prlimit", &["--pid", &id, &soft]);
    let mut band = Vec::new();
    for _ in 0..BAND {
        // What is not accepted waits in the queue, and connects all the same.
        band.push(TcpStream::connect(sidecar.address).await.unwrap());
    }
    load.goes_on(WELL).await;
    load.take().print("descriptors exhausted");
    assert!(sidecar.is_alive());
    run("prlimit", &["--pid", &id, "--nofile=4096:"]);
    drop(band);
    until("room", || sidecar.descriptors() < descriptors + BAND / 2).await;
    timeout(PATIENCE, async { while !get(sidecar.address).await {} }).await.unwrap();
    load.take();
    load.serves(WELL).await;
    load.stop("descriptors freed").await.assert_nothing_failed_before();
    sidecar.descriptors_fall_to(descriptors).await;
    let (_, after) = at_rest(&sidecar).await;
    assert!(after <= resident + KEPT, "{after} MiB of {resident} MiB");
}

/// Descriptors and memory once they no longer fall, after a few requests: an allocator gives back as it is used, and idle connections
/// to backends close after some seconds.
async fn at_rest(sidecar: &Sidecar) -> (usize, usize) {
    let load = Load::start(sidecar.address, CLIENTS);
    load.serves(WELL).await;
    load.end().await.assert_nothing_failed_before();
    let mut tick = interval(Duration::from_secs(1));
    let mut last = (usize::MAX, usize::MAX);
    let mut same = 0;
    while same < 4 {
        tick.tick().await;
        let now = (sidecar.descriptors(), sidecar.resident());
        same = if now.0 < last.0 || now.1 < last.1 { 0 } else { same + 1 };
        last = (now.0.min(last.0), now.1.min(last.1));
    }
    last
}

/// A connection from this address that had one answer.
async fn arrive(from: [u8; 4], address: SocketAddr) -> Option<TcpStream> {
    let visit = async {
        let socket = TcpSocket::new_v4().ok()?;
        socket.bind((from, 0).into()).ok()?;
        let mut stream = socket.connect(address).await.ok()?;
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: faults\r\n\r\n").await.ok()?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok") {
            if stream.read_buf(&mut answer).await.ok()? == 0 {
                return None;
            }
        }
        answer.starts_with(b"HTTP/1.1 200").then_some(stream)
    };
    timeout(PATIENCE, visit).await.ok()?
}

/// Sends a head that never ends, a byte every two seconds: whether it was cut off.
async fn trickle(address: SocketAddr) -> bool {
    let visit = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /object HTTP/1.1\r\nHost: faults\r\nX-Slow: ").await.unwrap();
        let mut tick = interval(Duration::from_secs(2));
        let mut answer = [0; 1024];
        loop {
            tokio::select! {
                _ = tick.tick() => if stream.write_all(b"a").await.is_err() { return },
                read = stream.read(&mut answer) => if matches!(read, Ok(0) | Err(_)) { return },
            }
        }
    };
    timeout(PATIENCE, visit).await.is_ok()
}

/// Sends a head of up to 16 MiB, of one long line or of many short ones: whether it was refused on the way.
async fn bomb(address: SocketAddr, n: usize) -> bool {
    let part = if n.is_multiple_of(2) { "a".repeat(64 * 1024) } else { "X-Bomb: a\r\n".repeat(6 * 1024) };
    let visit = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let (mut reader, mut writer) = stream.split();
        let send = async {
            if writer.write_all(b"GET /object HTTP/1.1\r\nHost: faults\r\nX-First: ").await.is_err() {
                return true;
            }
            for _ in 0..256 {
                if writer.write_all(part.as_bytes()).await.is_err() {
                    return true;
                }
            }
            false
        };
        let receive = async {
            let mut answer = Vec::new();
            let end = reader.read_to_end(&mut answer).await;
            answer.starts_with(b"HTTP/1.1 431") || (answer.is_empty() && end.is_err())
        };
        tokio::select! {
            biased;
            refused = receive => refused,
            cut = async { if send.await { true } else { std::future::pending().await } } => cut,
        }
    };
    timeout(PATIENCE, visit).await.unwrap_or(false)
}
