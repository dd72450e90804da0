//! Server and load for the benchmark of TCP listeners: what a connection is for is told by its first byte.

use std::{
    io::{BufRead, stdin},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use futures::future::try_join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout_at,
};

/// Every byte comes back.
const ECHO: u8 = b'e';
/// Bytes come for as long as somebody reads.
const SOURCE: u8 = b's';

const PIECE: usize = 256 * 1024;
const MESSAGE: usize = 64;
/// A proxy that takes longer for anything is not worth a figure.
const LIMIT: Duration = Duration::from_secs(20);

#[derive(Debug, Parser)]
struct Command {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve until killed
    Serve { address: SocketAddr },
    /// Read as fast as bytes come; prints bytes and microseconds
    Bulk { address: SocketAddr, connections: usize, seconds: u64 },
    /// Send 64 bytes and wait for them; prints round trips, their rate a second, p50 and p99 in microseconds
    Pingpong { address: SocketAddr, connections: usize, seconds: u64 },
    /// Open a connection, send and receive 64 bytes, close it, and again; prints how many
    Connect { address: SocketAddr, connections: usize, seconds: u64 },
    /// Open connections that say nothing after their first round trip; prints `there`, and waits for a line to close them
    Idle { address: SocketAddr, connections: usize },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Command::parse().action {
        Action::Serve { address } => serve(address).await,
        Action::Bulk { address, connections, seconds } => {
            let start = Instant::now();
            let end = (start + Duration::from_secs(seconds)).into();
            let readers = (0..connections).map(|_| read_all(address, end));
            let bytes: u64 = try_join_all(readers).await?.into_iter().sum();
            print_line(&[bytes, micros(start.elapsed())]);
            Ok(())
        }
        Action::Pingpong { address, connections, seconds } => {
            let (start, length) = (Instant::now(), Duration::from_secs(seconds));
            let clients = (0..connections).map(|_| round_trips(address, start + length));
            let mut times: Vec<u64> = try_join_all(clients).await?.concat();
            times.sort_unstable();
            let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
            let count = times.len() as u64;
            // Nanoseconds are written as microseconds with a fraction by whoever reads this.
            print_line(&[count, count * 1_000_000 / micros(start.elapsed()), at(50), at(99)]);
            Ok(())
        }
        Action::Connect { address, connections, seconds } => {
            let end = Instant::now() + Duration::from_secs(seconds);
            let clients = (0..connections).map(|_| connect_again(address, end));
            print_line(&[try_join_all(clients).await?.into_iter().sum()]);
            Ok(())
        }
        Action::Idle { address, connections } => {
            let mut held = Vec::with_capacity(connections);
            for _ in 0..connections {
                let mut stream = open(address, ECHO).await?;
                round_trip(&mut stream).await?;
                held.push(stream);
            }
            say("there");
            stdin().lock().read_line(&mut String::new())?;
            drop(held);
            say("done");
            Ok(())
        }
    }
}

#[expect(clippy::print_stdout, reason = "the benchmark reads it")]
fn say(text: &str) {
    println!("{text}");
}

fn print_line(numbers: &[u64]) {
    say(&numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" "));
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX).max(1)
}

async fn serve(address: SocketAddr) -> Result<()> {
    let socket = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    loop {
        let (stream, _) = socket.accept().await?;
        tokio::spawn(async move {
            // How clients end is their business.
            let _ = answer(stream).await;
        });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    match stream.read_u8().await? {
        ECHO => {
            let mut buffer = [0; MESSAGE];
            loop {
                stream.read_exact(&mut buffer).await?;
                stream.write_all(&buffer).await?;
            }
        }
        SOURCE => {
            let piece = vec![b'x'; PIECE];
            loop {
                stream.write_all(&piece).await?;
            }
        }
        other => bail!("{other} is no purpose"),
    }
}

async fn open(address: SocketAddr, purpose: u8) -> Result<TcpStream> {
    let connected = tokio::time::timeout(LIMIT, TcpStream::connect(address)).await;
    let mut stream = connected.context("no connection in time")?.context("no connection")?;
    stream.set_nodelay(true)?;
    stream.write_u8(purpose).await?;
    Ok(stream)
}

async fn round_trip(stream: &mut TcpStream) -> Result<()> {
    let mut buffer = [b'm'; MESSAGE];
    stream.write_all(&buffer).await?;
    tokio::time::timeout(LIMIT, stream.read_exact(&mut buffer)).await.context("no answer in time")??;
    Ok(())
}

async fn read_all(address: SocketAddr, end: tokio::time::Instant) -> Result<u64> {
    let mut stream = open(address, SOURCE).await?;
    let mut buffer = vec![0; PIECE];
    let mut total = 0;
    while let Ok(count) = timeout_at(end, stream.read(&mut buffer)).await {
        match count? {
            0 => bail!("the source has ended after {total} bytes"),
            count => total += count as u64,
        }
        if tokio::time::Instant::now() >= end {
            break;
        }
    }
    Ok(total)
}

/// Nanoseconds of each.
async fn round_trips(address: SocketAddr, end: Instant) -> Result<Vec<u64>> {
    let mut stream = open(address, ECHO).await?;
    let mut times = Vec::new();
    while Instant::now() < end {
        let start = Instant::now();
        round_trip(&mut stream).await?;
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(times)
}

async fn connect_again(address: SocketAddr, end: Instant) -> Result<u64> {
    let mut count = 0;
    while Instant::now() < end {
        let mut stream = open(address, ECHO).await?;
        round_trip(&mut stream).await?;
        count += 1;
    }
    Ok(count)
}
