//! Where a listener listens: an IP address, whose port is said beside it, or a Unix socket as `unix:/path`.

use std::{
    borrow::Cow,
    fmt,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    str::FromStr,
    sync::Arc,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{
    Address, UnitError,
    address::{UNIX, socket_path},
};
use crate::schema;

const PATTERN: &str = r"^(unix:/[!-~]*[!-.0-~]|[0-9.]{7,15}|[0-9A-Fa-f:.]{2,45})$";

/// An address to listen on, without the port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ListenAddress {
    Ip(IpAddr),
    /// An absolute path that fits what the kernel takes.
    Unix(Arc<Path>),
}

impl ListenAddress {
    /// The address that serves the application alone.
    pub const LOOPBACK: Self = Self::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST));

    /// The IP address; a Unix socket has none.
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Ip(ip) => Some(*ip),
            Self::Unix(_) => None,
        }
    }

    /// With the port beside it; a Unix socket has none.
    pub fn at(&self, port: u16) -> Address {
        match self {
            Self::Ip(ip) => (*ip, port).into(),
            Self::Unix(path) => Address::Unix(Arc::clone(path)),
        }
    }
}

impl From<[u8; 4]> for ListenAddress {
    fn from(octets: [u8; 4]) -> Self {
        Self::Ip(octets.into())
    }
}

impl FromStr for ListenAddress {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        match text.strip_prefix(UNIX) {
            Some(path) => socket_path(path).map(Self::Unix),
            None => text.parse().map(Self::Ip).map_err(|_| {
                UnitError(format!(
                    "{text:?} is not an IP address; write one such as 127.0.0.1 or ::1, or unix: and the path of a socket"
                ))
            }),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

impl Serialize for ListenAddress {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ListenAddress {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for ListenAddress {
    fn schema_name() -> Cow<'static, str> {
        "ListenAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::string(PATTERN, 112, "An IP address, or a Unix socket such as unix:/run/app/http.sock.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_listens_on_an_ip_address_or_on_a_socket() {
        for text in ["127.0.0.1", "0.0.0.0", "::1", "unix:/run/app/http.sock"] {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in ["localhost", "127.0.0.1:80", "unix:http.sock", ""] {
            let error = text.parse::<ListenAddress>().unwrap_err().to_string();
            assert!(error.contains("; write "), "{error}");
        }
    }
}
