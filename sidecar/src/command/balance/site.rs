//! SITE arguments: comma-separated pools of URLs with ranges -> endpoints. Pure.

use std::net::{IpAddr, SocketAddr};

use crds::units::{AddressPattern, DnsName, UnitError};
use http::{Uri, uri::Scheme};

use super::ellipses::{EllipsisError, MOST, expand};

/// One argument: all of its pools as one list, since a site's backends share its traffic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SiteArgument {
    pub(super) text: String,
    /// The backends speak TLS.
    pub(super) tls: bool,
    /// In the order in which they are written, at least one.
    pub(super) endpoints: Vec<Endpoint>,
}

/// Where one URL leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Address(AddressPattern),
    Name(DnsName, u16),
}

/// Why an argument is no site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SiteError {
    #[error("a URL is missing; write pools as http://minio{{1...4}}:9000,http://minio{{5...8}}:9000")]
    Empty,
    #[error("{0:?}: {1}")]
    Range(String, EllipsisError),
    #[error("{0:?} is not a URL; write it like http://minio1:9000")]
    NotAUrl(String),
    #[error("{0:?} does not begin with http:// or https://; write which of the two its servers speak")]
    Scheme(String),
    #[error("{0:?} has a path or a query; requests keep their own, so write http://HOST:PORT alone")]
    MoreThanAHost(String),
    /// Without the URL, which may hold a password.
    #[error(
        "a URL has a user before its host; requests are signed by who sends them, so write http://HOST:PORT alone"
    )]
    User,
    #[error("the site has more than {MOST} servers")]
    Many,
    #[error("{0:?} names no host that can be asked for: {1}")]
    Host(String, String),
    #[error("port 0 of {0:?} cannot be connected to; write a port from 1 to 65535")]
    Port(String),
    #[error("the site has http:// and https:// URLs; all servers of one site speak the same")]
    Mixed,
}

impl SiteArgument {
    pub(super) fn parse(text: &str) -> Result<Self, SiteError> {
        let mut tls = None;
        let mut endpoints = Vec::new();
        for pool in text.split(',').map(str::trim) {
            if pool.is_empty() {
                return Err(SiteError::Empty);
            }
            if pool.contains('@') {
                return Err(SiteError::User);
            }
            for url in expand(pool).map_err(|error| SiteError::Range(pool.to_owned(), error))? {
                let (secure, endpoint) = endpoint(&url)?;
                if *tls.get_or_insert(secure) != secure {
                    return Err(SiteError::Mixed);
                }
                if !endpoints.contains(&endpoint) {
                    endpoints.push(endpoint);
                }
                if endpoints.len() > MOST {
                    return Err(SiteError::Many);
                }
            }
        }
        Ok(Self { text: text.to_owned(), tls: tls == Some(true), endpoints })
    }
}

fn endpoint(url: &str) -> Result<(bool, Endpoint), SiteError> {
    let owned = || url.to_owned();
    if !url.contains("://") {
        return Err(SiteError::Scheme(owned()));
    }
    let uri: Uri = url.parse().map_err(|_| SiteError::NotAUrl(owned()))?;
    let tls = match uri.scheme() {
        Some(scheme) if *scheme == Scheme::HTTP => false,
        Some(scheme) if *scheme == Scheme::HTTPS => true,
        _ => return Err(SiteError::Scheme(owned())),
    };
    let authority = uri.authority().ok_or_else(|| SiteError::NotAUrl(owned()))?;
    let bare = matches!(uri.path(), "" | "/") && uri.query().is_none() && !url.contains('#');
    if !bare {
        return Err(SiteError::MoreThanAHost(owned()));
    }
    // Neither `host:` nor `host:99999` is a port of its own kind.
    let written = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
    let port = match (written, authority.port_u16()) {
        ("", _) if tls => 443,
        ("", _) => 80,
        (_, Some(0)) => return Err(SiteError::Port(owned())),
        (_, Some(port)) => port,
        (_, None) => return Err(SiteError::NotAUrl(owned())),
    };
    let host = authority.host();
    let unbracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let host_error = |error: UnitError| SiteError::Host(owned(), error.to_string());
    let endpoint = match unbracketed.parse::<IpAddr>() {
        Ok(ip) => Endpoint::Address(SocketAddr::new(ip, port).to_string().parse().map_err(host_error)?),
        Err(_) => Endpoint::Name(host.parse().map_err(host_error)?, port),
    };
    Ok((tls, endpoint))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoints(text: &str) -> Vec<String> {
        let site = SiteArgument::parse(text).unwrap();
        let endpoint = |endpoint: &Endpoint| match endpoint {
            Endpoint::Address(address) => address.to_string(),
            Endpoint::Name(name, port) => format!("{name}:{port}"),
        };
        site.endpoints.iter().map(endpoint).collect()
    }

    #[test]
    fn the_pools_of_a_site_are_one_list() {
        assert_eq!(
            endpoints("http://minio{1...2}:9000,http://10.0.0.{3...4}:9001"),
            ["minio1:9000", "minio2:9000", "10.0.0.3:9001", "10.0.0.4:9001",]
        );
        assert_eq!(endpoints("http://a"), ["a:80"]);
        assert_eq!(endpoints("https://a/"), ["a:443"]);
        assert_eq!(endpoints("http://[fd00::1]:9000, http://a:1,http://a:1"), ["[fd00::1]:9000", "a:1"]);
        assert!(SiteArgument::parse("https://a:1").unwrap().tls);
        assert!(!SiteArgument::parse("HTTP://a:1").unwrap().tls);
    }

    #[test]
    fn what_is_no_site_gets_one_line_with_the_remedy() {
        for (text, line) in [
            ("", "a URL is missing; write pools as http://minio{1...4}:9000,http://minio{5...8}:9000"),
            (
                "http://a:1,",
                "a URL is missing; write pools as http://minio{1...4}:9000,http://minio{5...8}:9000",
            ),
            (
                "minio1:9000",
                "\"minio1:9000\" does not begin with http:// or https://; write which of the two its servers speak",
            ),
            (
                "ftp://a:1",
                "\"ftp://a:1\" does not begin with http:// or https://; write which of the two its servers speak",
            ),
            ("http://", "\"http://\" is not a URL; write it like http://minio1:9000"),
            ("http://a:99999", "\"http://a:99999\" is not a URL; write it like http://minio1:9000"),
            ("http://a:", "\"http://a:\" is not a URL; write it like http://minio1:9000"),
            ("http://a:0", "port 0 of \"http://a:0\" cannot be connected to; write a port from 1 to 65535"),
            ("http://a b", "\"http://a b\" is not a URL; write it like http://minio1:9000"),
            (
                "http://a{1..4}",
                "\"http://a{1..4}\": {1..4} is not a range; write it as {1...4}, with three dots",
            ),
            (
                "http://a{1\n4}",
                "\"http://a{1\\n4}\": {1\\n4} is not a range; write it as {1...4}, with three dots",
            ),
            (
                "http://a:1/bucket",
                "\"http://a:1/bucket\" has a path or a query; requests keep their own, so write http://HOST:PORT alone",
            ),
            (
                "http://me:pw@a:1",
                "a URL has a user before its host; requests are signed by who sends them, so write http://HOST:PORT alone",
            ),
            ("http://a{1...1000}:1,http://b{1...1000}:1", "the site has more than 1024 servers"),
            (
                "http://a:1,https://b:1",
                "the site has http:// and https:// URLs; all servers of one site speak the same",
            ),
        ] {
            assert_eq!(SiteArgument::parse(text).unwrap_err().to_string(), line, "{text}");
        }
        assert!(matches!(SiteArgument::parse("http://-a:1"), Err(SiteError::Host(..))));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(https?://)?[a-z0-9.:{}\\[\\],/@-]{0,24}\\PC{0,3}") {
            let _ = SiteArgument::parse(&text);
        }
    }
}
