//! Who sends a request: key or certificate -> names -> allowed or not. Pure but for the keys, which one task reads again.
//!
//! A request is let in by the first way that knows its client. Keys are held as digests, and compared in the same time
//! whether one is nearly right or not at all.

mod keys;

use std::sync::Arc;

use crds::config::Authentication;
pub use keys::{KeyFiles, KeysError};

use self::keys::KeyFile;
use super::{access::Peer, message::RequestHead, reply::Refusal};

/// How clients of a listener are known, and who of them is let in.
#[derive(Debug)]
pub(super) struct Authenticator {
    keys: Option<(Arc<KeyFile>, String)>,
    certificates: bool,
    /// None lets in all that are known.
    allow: Option<Vec<Name>>,
}

/// One name of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Name {
    Whole(String),
    Beginning(String),
}

impl Authenticator {
    pub(super) fn new(settings: &Authentication, files: &KeyFiles) -> Result<Self, KeysError> {
        let keys = settings.api_keys.as_ref();
        let keys = keys.map(|keys| Ok((files.load(&keys.file)?, keys.header.clone()))).transpose()?;
        let names = settings.allow.iter().flat_map(|rule| &rule.names).map(|name| Name::of(name));
        Ok(Self {
            keys,
            certificates: settings.client_certificates,
            allow: (!settings.allow.is_empty()).then(|| names.collect()),
        })
    }

    pub(super) fn check(&self, request: &RequestHead, peer: &Peer) -> Result<(), Refusal> {
        if let Some((keys, header)) = &self.keys
            && let Some(value) = request.fields.get(header)
        {
            let current = keys.current();
            let name = current.name_of(secret(header, value)).ok_or_else(|| self.unknown())?;
            return self.allow(&[name]);
        }
        match &peer.identity {
            Some(identity) if self.certificates => {
                let lists = [&identity.dns_names, &identity.uris, &identity.emails];
                let names = identity.common_name.iter().chain(lists.into_iter().flatten());
                self.allow(&names.map(String::as_str).collect::<Vec<_>>())
            }
            _ => Err(self.unknown()),
        }
    }

    fn allow(&self, names: &[&str]) -> Result<(), Refusal> {
        let Some(allowed) = &self.allow else { return Ok(()) };
        let is_allowed = |name: &&str| allowed.iter().any(|allowed| allowed.matches(name));
        if names.iter().any(is_allowed) { Ok(()) } else { Err(Refusal::Forbidden) }
    }

    fn unknown(&self) -> Refusal {
        Refusal::Unauthorized { header: self.keys.as_ref().map(|(_, header)| header.clone()) }
    }
}

/// The key in a header's value.
fn secret<'a>(header: &str, value: &'a [u8]) -> &'a [u8] {
    const SCHEME: &[u8] = b"bearer ";
    match value.split_at_checked(SCHEME.len()) {
        Some((scheme, key))
            if header.eq_ignore_ascii_case("authorization") && scheme.eq_ignore_ascii_case(SCHEME) =>
        {
            key.trim_ascii()
        }
        _ => value,
    }
}

impl Name {
    fn of(text: &str) -> Self {
        match text.strip_suffix('*') {
            Some(beginning) => Self::Beginning(beginning.to_owned()),
            None => Self::Whole(text.to_owned()),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Whole(whole) => name == whole,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }
}

#[cfg(test)]
mod tests {
    use crds::config::{AllowRule, ApiKeys};

    use super::*;
    use crate::net::tls::Identity;

    const KEYS: &str =
        "# clients\nspark 0123456789abcdef\n\nci fedcba9876543210\nspark another-key-of-spark\n";

    /// What becomes of a request with these fields from a client with this certificate.
    fn status(settings: &Authentication, fields: &str, identity: Option<&Identity>) -> u16 {
        let authenticator = Authenticator::new(settings, &KeyFiles::default()).unwrap();
        let mut head = RequestHead::default();
        head.parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
        let peer = Peer::known_as(identity.cloned());
        authenticator.check(&head, &peer).map_or_else(|refusal| refusal.status().as_u16(), |()| 200)
    }

    fn allowing(names: &[&str]) -> Vec<AllowRule> {
        vec![AllowRule { names: names.iter().map(|name| (*name).to_owned()).collect() }]
    }

    #[test]
    fn a_client_is_known_by_its_key_and_let_in_by_its_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KEYS).unwrap();
        let keys = |header: &str| {
            let file = file.path().to_str().unwrap().to_owned();
            Some(ApiKeys { file, header: header.to_owned() })
        };
        let all = Authentication { api_keys: keys("X-Api-Key"), ..Authentication::default() };
        let some = Authentication { allow: allowing(&["ci", "sparkling"]), ..all.clone() };
        let bearer = Authentication { api_keys: keys("Authorization"), ..Authentication::default() };
        for (settings, fields, expected) in [
            (&all, "x-api-key: 0123456789abcdef\r\n", 200),
            (&all, "X-API-KEY: another-key-of-spark\r\n", 200),
            (&all, "", 401),
            (&all, "X-Api-Key: \r\n", 401),
            (&all, "X-Api-Key: 0123456789abcde\r\n", 401),
            (&all, "X-Api-Key: 0123456789abcdefg\r\n", 401),
            (&all, "X-Api-Key: spark 0123456789abcdef\r\n", 401),
            (&all, "Authorization: Bearer 0123456789abcdef\r\n", 401),
            (&some, "X-Api-Key: fedcba9876543210\r\n", 200),
            (&some, "X-Api-Key: 0123456789abcdef\r\n", 403),
            (&bearer, "Authorization: bearer 0123456789abcdef\r\n", 200),
            (&bearer, "Authorization: 0123456789abcdef\r\n", 200),
            (&bearer, "Authorization: Basic 0123456789abcdef\r\n", 401),
        ] {
            assert_eq!(status(settings, fields, None), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_client_is_let_in_by_any_name_of_its_certificate() {
        let identity = Identity {
            common_name: Some("spark".to_owned()),
            uris: vec!["spiffe://example.org/ns/analytics/sa/spark".to_owned()],
            ..Identity::default()
        };
        let all = Authentication { client_certificates: true, ..Authentication::default() };
        for (allow, expected) in [
            (Vec::new(), 200),
            (allowing(&["spark"]), 200),
            (allowing(&["ci", "spiffe://example.org/ns/analytics/*"]), 200),
            (allowing(&["spar", "spiffe://example.org/ns/other/*"]), 403),
        ] {
            let settings = Authentication { allow, ..all.clone() };
            assert_eq!(status(&settings, "", Some(&identity)), expected, "{settings:?}");
            assert_eq!(status(&settings, "", None), 401);
        }
        assert_eq!(status(&Authentication::default(), "", Some(&identity)), 401, "certificates do not count");
    }

    #[test]
    fn a_wrong_key_is_not_made_good_by_a_certificate() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), KEYS).unwrap();
        let api_keys =
            Some(ApiKeys { file: file.path().to_str().unwrap().to_owned(), header: "X-Api-Key".to_owned() });
        let both = Authentication { api_keys, client_certificates: true, ..Authentication::default() };
        let identity = Identity::default();
        assert_eq!(status(&both, "X-Api-Key: wrong\r\n", Some(&identity)), 401);
        assert_eq!(status(&both, "", Some(&identity)), 200);
        assert_eq!(status(&both, "X-Api-Key: 0123456789abcdef\r\n", None), 200);
    }
}
