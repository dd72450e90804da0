//! Where a server is: `ip:port`, or a Unix socket as `unix:/path`.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, SocketAddr},
    path::Path,
    str::FromStr,
    sync::Arc,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::UnitError;

/// What the kernel takes: `sun_path` less its terminating zero.
pub const MAX_SOCKET_PATH: usize = 107;

pub(super) const UNIX: &str = "unix:";

/// The address of one backend. Cheap to clone: a copy, or one count more.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    Ip(SocketAddr),
    /// An absolute path of at most [`MAX_SOCKET_PATH`] bytes.
    Unix(Arc<Path>),
}

impl Address {
    /// IP and port; a Unix socket has none.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether two cannot be listened on at once: same port and one address covers the other, or the same Unix socket.
    pub fn excludes(&self, other: &Self) -> bool {
        match (self.ip(), other.ip()) {
            (Some(a), Some(b)) => {
                let covers = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() == b.port() && covers
            }
            _ => self == other,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl<I: Into<IpAddr>> From<(I, u16)> for Address {
    fn from(address: (I, u16)) -> Self {
        Self::Ip(address.into())
    }
}

impl FromStr for Address {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return socket_path(path).map(Self::Unix);
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            UnitError(format!(
                "{text:?} is not ip:port; write 10.9.0.1:9000, [fd00::1]:9000 or unix:/run/app.sock"
            ))
        })?;
        if address.port() == 0 {
            return Err(UnitError("port 0 cannot be connected to; write a port from 1 to 65535".to_owned()));
        }
        Ok(Self::Ip(address))
    }
}

/// Parses what stands behind `unix:`.
pub(super) fn socket_path(path: &str) -> Result<Arc<Path>, UnitError> {
    if !path.starts_with('/') || path.ends_with('/') || path.contains(|c: char| c.is_control()) {
        return Err(UnitError(format!(
            "{path:?} is not the path of a Unix socket; write an absolute path, as in unix:/run/app.sock"
        )));
    }
    if path.len() > MAX_SOCKET_PATH {
        return Err(UnitError(format!(
            "the path of a Unix socket has at most {MAX_SOCKET_PATH} bytes, and {path:?} has {}; choose a shorter one",
            path.len()
        )));
    }
    Ok(Path::new(path).into())
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Serialize for Address {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Address {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_exclude_each_other_where_one_covers_the_other() {
        for (a, b, excludes) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("unix:/run/a", "unix:/run/a", true),
            ("unix:/run/a", "unix:/run/b", false),
            ("unix:/run/a", "127.0.0.1:80", false),
        ] {
            let [a, b] = [a, b].map(|text| text.parse::<Address>().unwrap());
            assert_eq!((a.excludes(&b), b.excludes(&a)), (excludes, excludes), "{a} {b}");
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_read() {
        for text in ["10.9.0.1:9000", "[fd00::1]:9000", "unix:/run/app.sock"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            let json = serde_json::to_string(&address).unwrap();
            assert_eq!(serde_json::from_str::<Address>(&json).unwrap(), address);
        }
        let long = format!("unix:/{}", "a".repeat(MAX_SOCKET_PATH));
        for text in
            ["10.9.0.1", "10.9.0.1:0", "unix:", "unix:run/app.sock", "unix:/run/", "unix:/a\0b", &long]
        {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
