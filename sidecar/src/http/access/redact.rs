//! A request's path as it may be logged: the values of secret query parameters are left out. Pure.

use memchr::memchr;

/// Stands for a secret.
const REDACTED: &[u8] = b"REDACTED";

/// Parameters that are secret wherever they occur, in lower case: signatures and credentials of S3 (both versions), Google
/// and Azure, and what applications commonly call theirs.
pub(super) const SECRET: [&str; 23] = [
    "access_token",
    "api-key",
    "api_key",
    "apikey",
    "auth",
    "authorization",
    "awsaccesskeyid",
    "client_secret",
    "code",
    "id_token",
    "key",
    "passwd",
    "password",
    "refresh_token",
    "secret",
    "sig",
    "signature",
    "token",
    "x-amz-credential",
    "x-amz-security-token",
    "x-amz-signature",
    "x-goog-credential",
    "x-goog-signature",
];

/// Longest name of a secret parameter.
const LONGEST: usize = 64;

/// Which query parameters are secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Redact {
    /// In lower case, sorted.
    names: Box<[Box<str>]>,
}

impl Redact {
    pub(super) fn new(more: &[String]) -> Self {
        let more = more.iter().map(|name| name.to_ascii_lowercase().into_boxed_str());
        let mut names: Vec<Box<str>> = SECRET.iter().map(|name| (*name).into()).chain(more).collect();
        names.sort_unstable();
        names.dedup();
        Self { names: names.into() }
    }

    /// Gives the path piece by piece. A parameter is what stands between two `&`; some servers end one at `;` too, so that
    /// a name behind that counts as well, and takes the rest of its piece with it.
    pub(super) fn pieces<'a>(&self, path: &'a [u8], mut each: impl FnMut(&'a [u8])) {
        let Some(query) = memchr(b'?', path).map(|at| at + 1) else { return each(path) };
        each(&path[..query]);
        let mut rest = &path[query..];
        loop {
            let end = memchr(b'&', rest).unwrap_or(rest.len());
            let parameter = &rest[..end];
            match self.secret_at(parameter) {
                Some(value) => {
                    each(&parameter[..value]);
                    each(REDACTED);
                }
                None => each(parameter),
            }
            if end == rest.len() {
                return;
            }
            each(&rest[end..=end]);
            rest = &rest[end + 1..];
        }
    }

    /// Where in a parameter a secret value begins.
    fn secret_at(&self, parameter: &[u8]) -> Option<usize> {
        let mut start = 0;
        for part in parameter.split(|byte| *byte == b';') {
            if let Some(equals) = memchr(b'=', part)
                && self.is_secret(&part[..equals])
            {
                return Some(start + equals + 1);
            }
            start += part.len() + 1;
        }
        None
    }

    fn is_secret(&self, name: &[u8]) -> bool {
        let mut plain = [0; LONGEST];
        let Some(length) = decode(name, &mut plain) else { return false };
        let plain = &plain[..length];
        self.names.binary_search_by(|known| known.as_bytes().cmp(plain)).is_ok()
    }
}

/// Decodes `%xx` and lowers the case; `None` for a name that is too long to be a secret's.
fn decode(name: &[u8], plain: &mut [u8; LONGEST]) -> Option<usize> {
    let (mut length, mut rest) = (0, name);
    while let [first, more @ ..] = rest {
        let (byte, after) = match (first, more) {
            (b'%', [high, low, after @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => (high << 4 | low, after),
                _ => (*first, more),
            },
            _ => (*first, more),
        };
        *plain.get_mut(length)? = byte.to_ascii_lowercase();
        length += 1;
        rest = after;
    }
    Some(length)
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redacted(path: &str) -> String {
        let mut out = Vec::new();
        Redact::new(&["Ticket".to_owned()]).pieces(path.as_bytes(), |piece| out.extend_from_slice(piece));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn secret_parameters_lose_their_values_and_all_else_stays() {
        for (path, expected) in [
            ("/a//b%2fc", "/a//b%2fc"),
            ("/a?", "/a?"),
            ("/a?list-type=2&prefix=x%20y&&c", "/a?list-type=2&prefix=x%20y&&c"),
            (
                "/o?X-Amz-Algorithm=AWS4&X-Amz-Credential=AKIA%2F20261122&X-Amz-Signature=0af&x=1",
                "/o?X-Amz-Algorithm=AWS4&X-Amz-Credential=REDACTED&X-Amz-Signature=REDACTED&x=1",
            ),
            ("/o?x-amz-security-TOKEN=a=b?c", "/o?x-amz-security-TOKEN=REDACTED"),
            ("/o?X%2DAmz%2dSignature=0af", "/o?X%2DAmz%2dSignature=REDACTED"),
            ("/o?a=1;Signature=0af;b=2&c=3", "/o?a=1;Signature=REDACTED&c=3"),
            ("/o?ticket=1&tickets=2", "/o?ticket=REDACTED&tickets=2"),
            ("/token=1/key=2", "/token=1/key=2"),
        ] {
            assert_eq!(redacted(path), expected);
        }
    }
}
