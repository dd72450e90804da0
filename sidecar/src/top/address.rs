//! Where a sidecar tells its metrics.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    str::FromStr,
};

use http::Uri;

/// An admin address: `http://HOST:PORT`, or `HOST:PORT` alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAddress {
    host: String,
    port: u16,
}

/// Text that is no admin address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("it is not http://HOST:PORT; write it like http://127.0.0.1:15470")]
    NotAnAddress,
    #[error("metrics are served without TLS; write http:// instead of https://")]
    Https,
}

impl AdminAddress {
    /// Without the brackets of an IPv6 address.
    pub(super) fn host(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }
}

impl From<SocketAddr> for AdminAddress {
    fn from(address: SocketAddr) -> Self {
        let host = match address.ip() {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("[{ip}]"),
        };
        Self { host, port: address.port() }
    }
}

impl FromStr for AdminAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let whole = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
        let uri: Uri = whole.parse().map_err(|_| AddressError::NotAnAddress)?;
        if uri.scheme_str() == Some("https") {
            return Err(AddressError::Https);
        }
        let known_path = matches!(uri.path(), "" | "/" | "/metrics") && uri.query().is_none();
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'));
        match (uri.scheme_str(), authority) {
            (Some("http"), Some(authority)) if known_path && !authority.host().is_empty() => {
                let port = match authority.as_str().strip_prefix(authority.host()) {
                    Some("") => crds::names::ADMIN_PORT,
                    Some(port) => port[1..].parse().map_err(|_| AddressError::NotAnAddress)?,
                    None => return Err(AddressError::NotAnAddress),
                };
                Ok(Self { host: authority.host().to_owned(), port })
            }
            _ => Err(AddressError::NotAnAddress),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_address_is_a_host_and_a_port() {
        for (text, address) in [
            ("http://127.0.0.1:15470", "http://127.0.0.1:15470"),
            ("127.0.0.1:1", "http://127.0.0.1:1"),
            ("http://[::1]:7/metrics", "http://[::1]:7"),
            ("node-1", "http://node-1:15470"),
        ] {
            assert_eq!(text.parse::<AdminAddress>().unwrap().to_string(), address);
        }
        assert_eq!("https://a:1".parse::<AdminAddress>(), Err(AddressError::Https));
        for text in ["", "http://", "ftp://a:1", "http://a:1/x", "http://me:secret@a:1", "a b", "a:99999"] {
            assert!(text.parse::<AdminAddress>().is_err(), "{text}");
        }
    }
}
