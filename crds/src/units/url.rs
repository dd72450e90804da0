//! Addresses of web servers that the sidecar asks itself: `http://` or `https://`, host, port and path.

use std::{borrow::Cow, fmt, net::IpAddr, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{DnsName, UnitError};
use crate::schema;

const PATTERN: &str =
    r"^https?://([-A-Za-z0-9._]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?(/[!-\[\]^_a-z~]*)?$";
const MAX_LENGTH: usize = 2048;

/// A URL such as `https://login.example.com/keys`, without user, password or fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpUrl {
    text: String,
    secure: bool,
    host: String,
    port: u16,
    /// Where the path begins in the text; its end where there is none.
    path: usize,
}

impl HttpUrl {
    /// Whether it is met within TLS.
    pub fn is_secure(&self) -> bool {
        self.secure
    }

    /// A DNS name or an IP address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Host and port as they stand in the URL.
    pub fn authority(&self) -> &str {
        let start = if self.secure { "https://".len() } else { "http://".len() };
        &self.text[start..self.path]
    }

    /// Path and query; `/` where there are none.
    pub fn path(&self) -> &str {
        Some(&self.text[self.path..]).filter(|path| !path.is_empty()).unwrap_or("/")
    }
}

impl FromStr for HttpUrl {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        parse(text).ok_or_else(|| {
            UnitError(format!(
                "{text:?} is not the URL of a web server; write one such as https://login.example.com/keys, without user or fragment"
            ))
        })
    }
}

fn parse(text: &str) -> Option<HttpUrl> {
    let (rest, secure) = match text.strip_prefix("https://") {
        Some(rest) => (rest, true),
        None => (text.strip_prefix("http://")?, false),
    };
    let authority = rest.split('/').next()?;
    let path = text.len() - rest.len() + authority.len();
    let allowed = |byte: u8| {
        byte.is_ascii_graphic()
            && !matches!(byte, b'#' | b'"' | b'<' | b'>' | b'\\' | b'`' | b'{' | b'|' | b'}')
    };
    if text.len() > MAX_LENGTH || !text[path..].bytes().all(allowed) {
        return None;
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            let _: std::net::Ipv6Addr = host.parse().ok()?;
            (host, Some(port).filter(|port| !port.is_empty()).map(|port| port.strip_prefix(':')))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(Some(port))),
            None => (authority, None),
        },
    };
    let port = match port {
        Some(digits) => {
            let digits = digits.filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?;
            digits.parse().ok().filter(|port| *port != 0)?
        }
        None if secure => 443,
        None => 80,
    };
    if host.parse::<IpAddr>().is_err() {
        host.parse::<DnsName>().ok()?;
    }
    Some(HttpUrl { text: text.to_owned(), secure, host: host.to_owned(), port, path })
}

impl fmt::Display for HttpUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for HttpUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for HttpUrl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Cow::<'_, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl JsonSchema for HttpUrl {
    fn schema_name() -> Cow<'static, str> {
        "HttpUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schema::string(
            PATTERN,
            2048,
            "A URL such as https://login.example.com/keys, without user or fragment.",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        for (text, secure, host, port, authority, path) in [
            ("https://login.example.com", true, "login.example.com", 443, "login.example.com", "/"),
            ("http://keys:8080/a?b=c/d", false, "keys", 8080, "keys:8080", "/a?b=c/d"),
            ("https://[::1]:8443/", true, "::1", 8443, "[::1]:8443", "/"),
            ("http://[fd00::1]", false, "fd00::1", 80, "[fd00::1]", "/"),
            ("http://10.0.0.1:4318/v1/traces", false, "10.0.0.1", 4318, "10.0.0.1:4318", "/v1/traces"),
        ] {
            let url: HttpUrl = text.parse().unwrap();
            assert_eq!((url.is_secure(), url.host(), url.port()), (secure, host, port));
            assert_eq!((url.authority(), url.path(), url.to_string().as_str()), (authority, path, text));
        }
    }

    #[test]
    fn what_is_none_or_hides_something_is_refused() {
        for text in [
            "",
            "login.example.com",
            "ftp://a",
            "https://",
            "https:///a",
            "https://user:secret@a/",
            "https://a:0",
            "https://a:65536",
            "https://a:+80",
            "https://a:",
            "https://a b",
            "https://a/ b",
            "https://a/#b",
            "https://[::1",
            "https://[::1]x",
            "https://[a]",
            "https://a?b",
        ] {
            assert!(text.parse::<HttpUrl>().is_err(), "{text}");
        }
    }
}
