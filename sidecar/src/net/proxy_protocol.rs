//! The PROXY protocol: who the client is, said in front of the first byte of a connection. Version 1 is a line of text,
//! version 2 is binary. Pure, but for [`read`], which takes from a connection the header and not one byte more.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>.

use std::{
    fmt::Write as _,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use crds::config::ProxyVersion;
use tokio::{io::AsyncReadExt, time::timeout};

use super::Socket;

/// What every version 2 begins with.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";

/// The longest line of version 1, its end included.
const LONGEST_LINE: usize = 107;

/// The longest header of version 2 that is taken: addresses, and as many additions as anyone sends.
const LONGEST: usize = 4096;

/// A client that has not said who it is after this time is cut off.
const LIMIT: Duration = Duration::from_secs(5);

/// Both ends of a connection, as the client sees them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

impl Ends {
    /// Those of a TCP connection that a client has opened; a Unix socket has none.
    pub fn of(socket: &Socket) -> Option<Self> {
        match socket {
            Socket::Tcp(stream) => {
                Some(Self { source: stream.peer_addr().ok()?, destination: stream.local_addr().ok()? })
            }
            Socket::Unix(_) => None,
        }
    }
}

/// Why a header cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHeader {
    #[error("the connection does not begin with the PROXY protocol")]
    NoHeader,
    #[error("the line of the PROXY protocol cannot be read")]
    Line,
    #[error("the header of the PROXY protocol has another version than 1 and 2")]
    Version,
    #[error("the header of the PROXY protocol has {0} bytes, and at most {LONGEST} are taken")]
    Long(usize),
    #[error("the addresses of the PROXY protocol's header cannot be read")]
    Addresses,
}

impl From<BadHeader> for io::Error {
    fn from(error: BadHeader) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

/// Takes the header from the front of a connection. None where it says that nobody is behind it, as health checks do.
pub async fn read(socket: &mut Socket) -> io::Result<Option<Ends>> {
    let late = || io::Error::new(io::ErrorKind::TimedOut, "no PROXY protocol within 5 s");
    timeout(LIMIT, take(socket)).await.map_err(|_| late())?
}

async fn take(socket: &mut Socket) -> io::Result<Option<Ends>> {
    // No header is shorter than what tells the versions apart.
    let mut start = [0; SIGNATURE.len()];
    socket.read_exact(&mut start).await?;
    if &start == SIGNATURE {
        let mut rest = [0; 4];
        socket.read_exact(&mut rest).await?;
        let (command, family) = (rest[0], rest[1]);
        let length = usize::from(u16::from_be_bytes([rest[2], rest[3]]));
        if length > LONGEST {
            return Err(BadHeader::Long(length).into());
        }
        let mut body = vec![0; length];
        socket.read_exact(&mut body).await?;
        return Ok(binary(command, family, &body)?);
    }
    if !start.starts_with(b"PROXY ") {
        return Err(BadHeader::NoHeader.into());
    }
    let mut line = start.to_vec();
    // Byte by byte, since what follows is the client's: a line is short, and comes once.
    while !line.ends_with(b"\r\n") {
        if line.len() == LONGEST_LINE {
            return Err(BadHeader::Line.into());
        }
        line.push(socket.read_u8().await?);
    }
    Ok(text(&line)?)
}

/// Reads a line of version 1.
pub fn text(line: &[u8]) -> Result<Option<Ends>, BadHeader> {
    let line =
        line.strip_suffix(b"\r\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(BadHeader::Line)?;
    let mut words = line.split(' ');
    let family = match (words.next(), words.next()) {
        (Some("PROXY"), Some("UNKNOWN")) => return Ok(None),
        (Some("PROXY"), Some(family)) => family,
        _ => return Err(BadHeader::Line),
    };
    let words: Vec<&str> = words.collect();
    let [source, destination, source_port, destination_port] = words[..] else { return Err(BadHeader::Line) };
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u16>().ok())?;
    let end = |host: &str, number: &str| Some(SocketAddr::new(ip(host)?, port(number)?));
    match (end(source, source_port), end(destination, destination_port)) {
        (Some(source), Some(destination)) => Ok(Some(Ends { source, destination })),
        _ => Err(BadHeader::Line),
    }
}

/// Reads what follows the signature of version 2. Additions behind the addresses are passed over.
pub fn binary(command: u8, family: u8, body: &[u8]) -> Result<Option<Ends>, BadHeader> {
    match command {
        0x20 => return Ok(None),
        0x21 => {}
        _ => return Err(BadHeader::Version),
    }
    let port = |at: usize| Some(u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]));
    let four = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(body.get(at..at + 4)?).ok()?));
    let six = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(body.get(at..at + 16)?).ok()?));
    let ends =
        match family >> 4 {
            // Of no family, or of Unix sockets: whoever it is has no address.
            0 | 3 => return Ok(None),
            1 => (|| {
                Some(Ends { source: (four(0)?, port(8)?).into(), destination: (four(4)?, port(10)?).into() })
            })(),
            2 => (|| {
                Some(Ends { source: (six(0)?, port(32)?).into(), destination: (six(16)?, port(34)?).into() })
            })(),
            _ => None,
        };
    ends.map(Some).ok_or(BadHeader::Addresses)
}

/// The header that tells a backend of a client; of nobody where there are no addresses.
pub fn write(version: ProxyVersion, ends: Option<Ends>) -> Vec<u8> {
    // Both ends are of one family in this protocol.
    let ends =
        ends.map(|ends| match (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical()) {
            (source @ IpAddr::V4(_), destination @ IpAddr::V4(_)) => Ends {
                source: (source, ends.source.port()).into(),
                destination: (destination, ends.destination.port()).into(),
            },
            (source, destination) => Ends {
                source: (mapped(source), ends.source.port()).into(),
                destination: (mapped(destination), ends.destination.port()).into(),
            },
        });
    match version {
        ProxyVersion::V1 => write_text(ends),
        ProxyVersion::V2 => write_binary(ends),
    }
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn write_text(ends: Option<Ends>) -> Vec<u8> {
    let Some(Ends { source, destination }) = ends else { return b"PROXY UNKNOWN\r\n".to_vec() };
    let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
    let mut line = String::with_capacity(LONGEST_LINE);
    // Writing to a String cannot fail.
    let _ = write!(
        line,
        "PROXY {family} {} {} {} {}\r\n",
        source.ip(),
        destination.ip(),
        source.port(),
        destination.port()
    );
    line.into_bytes()
}

fn write_binary(ends: Option<Ends>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    match ends {
        None => header.extend([0x20, 0, 0, 0]),
        Some(Ends { source, destination }) => {
            let (family, length) = if source.is_ipv4() { (0x11, 12) } else { (0x21, 36) };
            header.extend([0x21, family, 0, length]);
            for end in [source, destination] {
                match end.ip() {
                    IpAddr::V4(ip) => header.extend(ip.octets()),
                    IpAddr::V6(ip) => header.extend(ip.octets()),
                }
            }
            header.extend(source.port().to_be_bytes());
            header.extend(destination.port().to_be_bytes());
        }
    }
    header
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::{io::AsyncWriteExt, net::UnixStream};

    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    /// Reads a header from a connection that brings these bytes, and gives what is left behind it.
    async fn taken(bytes: &[u8]) -> (io::Result<Option<Ends>>, Vec<u8>) {
        let (mut client, server) = UnixStream::pair().unwrap();
        client.write_all(bytes).await.unwrap();
        drop(client);
        let mut socket = Socket::Unix(server);
        let read = read(&mut socket).await;
        let mut rest = Vec::new();
        socket.read_to_end(&mut rest).await.unwrap();
        (read, rest)
    }

    #[test]
    fn headers_are_written_as_the_protocol_has_them() {
        let four = Some(ends("192.168.0.1:56324", "192.168.0.11:443"));
        assert_eq!(write(ProxyVersion::V1, four), b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n");
        assert_eq!(write(ProxyVersion::V1, None), b"PROXY UNKNOWN\r\n");
        let mixed = Some(ends("[fd00::1]:1", "10.0.0.1:2"));
        assert_eq!(write(ProxyVersion::V1, mixed), b"PROXY TCP6 fd00::1 ::ffff:10.0.0.1 1 2\r\n");
        let binary = write(ProxyVersion::V2, four);
        assert_eq!(binary[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(binary[16..], [192, 168, 0, 1, 192, 168, 0, 11, 0xdc, 0x04, 0x01, 0xbb]);
        assert_eq!(write(ProxyVersion::V2, None)[12..], [0x20, 0, 0, 0]);
    }

    #[tokio::test]
    async fn what_is_not_the_protocol_is_refused() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 99999\r\n",
            b"PROXY TCP4 1.2.3.4 1.2.3.4 1 +2\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP9 1.2.3.4 1.2.3.4 1 2\r\n",
            b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c123456789012",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x041234",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"PROXY",
        ] {
            assert!(taken(bytes).await.0.is_err(), "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat();
        assert!(taken(&endless).await.0.is_err());
    }

    #[tokio::test]
    async fn a_header_without_a_client_is_one() {
        for bytes in [
            &b"PROXY UNKNOWN\r\nx"[..],
            b"PROXY UNKNOWN ffff:f...f:ffff 65535 65535\r\nx",
            b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0x",
            b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\x02abx",
        ] {
            let (read, rest) = taken(bytes).await;
            assert_eq!((read.unwrap(), rest), (None, b"x".to_vec()), "{}", String::from_utf8_lossy(bytes));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_nothing_behind_it(
            source: (bool, [u8; 16], u16), destination: (bool, [u8; 16], u16), rest: Vec<u8>, second: bool, additions in 0usize..40,
        ) {
            let end = |(six, octets, port): (bool, [u8; 16], u16)| -> SocketAddr {
                if six { (Ipv6Addr::from(octets), port).into() } else { (Ipv4Addr::from([octets[0], octets[1], octets[2], octets[3]]), port).into() }
            };
            let ends = Ends { source: end(source), destination: end(destination) };
            let version = if second { ProxyVersion::V2 } else { ProxyVersion::V1 };
            let mut bytes = write(version, Some(ends));
            prop_assert!(!second || bytes.len() >= 28);
            if second {
                let length = bytes[15] as usize + additions;
                bytes[15] = length as u8;
                bytes.extend(vec![0; additions]);
            }
            bytes.extend(&rest);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let (read, left) = runtime.block_on(taken(&bytes));
            let read = read.unwrap().unwrap();
            let same = |a: SocketAddr, b: SocketAddr| a.port() == b.port() && a.ip().to_canonical() == b.ip().to_canonical();
            prop_assert!(same(read.source, ends.source) && same(read.destination, ends.destination));
            prop_assert_eq!(left, rest);
        }

        #[test]
        fn no_bytes_make_it_panic(line: Vec<u8>, command: u8, family: u8, body: Vec<u8>) {
            let _ = text(&line);
            let _ = binary(command, family, &body);
        }
    }
}
