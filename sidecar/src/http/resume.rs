//! Going on with an answer that broke off: the rest of the same version of the object, from another backend. Pure.
//!
//! Only where nobody can tell the difference: the entity tag is strong, so that it names the bytes, and the range that is
//! asked for was not signed. Otherwise the answer stays broken, and its client sees that.

use super::message::{Framing, Method, RequestHead, ResponseHead};

/// What the rest of an answer must be.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Resume {
    etag: Vec<u8>,
    /// Where in the object the answer began.
    first: u64,
    /// Of the answer's body, in bytes.
    length: u64,
    /// Of the object, in bytes.
    size: u64,
    /// The client's own condition is sent already.
    has_condition: bool,
}

impl Resume {
    /// None for an answer that cannot be gone on with.
    pub(super) fn of(request: &RequestHead, response: &ResponseHead) -> Option<Self> {
        let Framing::Length(length) = response.framing else { return None };
        if request.method != Method::Get || request.framing != Framing::None || !may_add_range(request) {
            return None;
        }
        let etag = response.fields.get("etag")?;
        if !(etag.starts_with(b"\"") && etag.ends_with(b"\"") && etag.len() > 2) {
            return None;
        }
        let (first, size) = match response.status {
            200 => (0, length),
            206 => {
                let range = ContentRange::parse(response.fields.get("content-range")?)?;
                (range.last - range.first + 1 == length).then_some((range.first, range.size))?
            }
            _ => return None,
        };
        let has_condition = request.fields.get("if-match").is_some();
        Some(Self { etag: etag.to_vec(), first, length, size, has_condition })
    }

    /// The lines that ask for what follows the first `received` bytes of the body.
    pub(super) fn lines(&self, received: u64) -> Vec<u8> {
        let (from, to) = (self.first + received, self.first + self.length - 1);
        let mut lines = format!("Range: bytes={from}-{to}\r\n").into_bytes();
        if !self.has_condition {
            lines.extend_from_slice(b"If-Match: ");
            lines.extend_from_slice(&self.etag);
            lines.extend_from_slice(b"\r\n");
        }
        lines
    }

    /// Whether an answer to that request is what follows, to the byte.
    pub(super) fn is_continued_by(&self, response: &ResponseHead, received: u64) -> bool {
        let expected = ContentRange {
            first: self.first + received,
            last: self.first + self.length - 1,
            size: self.size,
        };
        response.status == 206
            && response.framing == Framing::Length(self.length - received)
            && response.fields.get("etag") == Some(&self.etag)
            && response.fields.get("content-range").and_then(ContentRange::parse) == Some(expected)
    }
}

#[derive(Debug, PartialEq, Eq)]
struct ContentRange {
    first: u64,
    last: u64,
    size: u64,
}

impl ContentRange {
    /// `bytes 0-99/1000`; a size that is not told is of no use.
    fn parse(value: &[u8]) -> Option<Self> {
        let value = str::from_utf8(value).ok()?.strip_prefix("bytes ")?;
        let (range, size) = value.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let number =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?;
        let range = Self { first: number(first)?, last: number(last)?, size: number(size)? };
        (range.first <= range.last && range.last < range.size).then_some(range)
    }
}

/// A signature covers what it names. A field that it does not name may be added, but one that is there and named cannot change.
fn may_add_range(request: &RequestHead) -> bool {
    if request.fields.get("if-range").is_some() {
        return false;
    }
    let ranged = request.fields.get("range").is_some();
    let signed =
        request.fields.get("authorization").is_some_and(|value| names_range(value, b"SignedHeaders="))
            || names_range(request.path(), b"X-Amz-SignedHeaders=");
    !(ranged && signed)
}

/// Whether the list of signed headers that follows `key` has `range`.
fn names_range(text: &[u8], key: &[u8]) -> bool {
    let Some(at) = memchr::memmem::find(text, key) else { return false };
    let list = &text[at + key.len()..];
    let end = list.iter().position(|byte| matches!(byte, b',' | b'&' | b' ')).unwrap_or(list.len());
    let list = String::from_utf8_lossy(&list[..end]).to_ascii_lowercase().replace("%3b", ";");
    list.split(';').any(|name| name == "range")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heads(request: &str, response: &str) -> (RequestHead, ResponseHead) {
        let (mut asked, mut answered) = (RequestHead::default(), ResponseHead::default());
        asked.parse(request.as_bytes()).unwrap();
        answered.parse(response.as_bytes(), &asked).unwrap();
        (asked, answered)
    }

    fn resume(request: &str, response: &str) -> Option<Resume> {
        let (request, response) =
            heads(&format!("{request}Host: a\r\n\r\n"), &format!("HTTP/1.1 {response}\r\n\r\n"));
        Resume::of(&request, &response)
    }

    const OK: &str = "200 OK\r\nETag: \"a\"\r\nContent-Length: 100";
    const PART: &str =
        "206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 50-59/100\r\nContent-Length: 10";

    #[test]
    fn only_what_is_the_same_for_sure_is_gone_on_with() {
        let signed = "Authorization: AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host;range;x-amz-date, Signature=y\r\n";
        let unsigned =
            "Authorization: AWS4-HMAC-SHA256 Credential=x, SignedHeaders=host;x-amz-date, Signature=y\r\n";
        let ranged = "Range: bytes=50-59\r\n";
        for (request, response, expected) in [
            ("GET / HTTP/1.1\r\n".to_owned(), OK, true),
            (format!("GET / HTTP/1.1\r\n{ranged}"), PART, true),
            (format!("GET / HTTP/1.1\r\n{unsigned}{ranged}"), PART, true),
            (format!("GET / HTTP/1.1\r\n{signed}{ranged}"), PART, false),
            (format!("GET / HTTP/1.1\r\n{signed}"), OK, true),
            (format!("GET /?X-Amz-SignedHeaders=host%3Brange&x=1 HTTP/1.1\r\n{ranged}"), PART, false),
            (format!("GET /?X-Amz-SignedHeaders=host&x=range HTTP/1.1\r\n{ranged}"), PART, true),
            ("GET / HTTP/1.1\r\nIf-Range: \"a\"\r\n".to_owned(), OK, false),
            ("POST / HTTP/1.1\r\n".to_owned(), OK, false),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\n".to_owned(), OK, false),
            ("GET / HTTP/1.1\r\n".to_owned(), "200 OK\r\nETag: W/\"a\"\r\nContent-Length: 100", false),
            ("GET / HTTP/1.1\r\n".to_owned(), "200 OK\r\nContent-Length: 100", false),
            ("GET / HTTP/1.1\r\n".to_owned(), "200 OK\r\nETag: \"a\"\r\nTransfer-Encoding: chunked", false),
            ("GET / HTTP/1.1\r\n".to_owned(), "404 Not Found\r\nETag: \"a\"\r\nContent-Length: 100", false),
            (
                format!("GET / HTTP/1.1\r\n{ranged}"),
                "206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 50-59/*\r\nContent-Length: 10",
                false,
            ),
            (
                format!("GET / HTTP/1.1\r\n{ranged}"),
                "206 Partial Content\r\nETag: \"a\"\r\nContent-Type: multipart/byteranges\r\nContent-Length: 10",
                false,
            ),
        ] {
            assert_eq!(resume(&request, response).is_some(), expected, "{request} {response}");
        }
    }

    #[test]
    fn it_asks_for_what_follows_in_the_same_version() {
        let whole = resume("GET / HTTP/1.1\r\n", OK).unwrap();
        assert_eq!(whole.lines(40), b"Range: bytes=40-99\r\nIf-Match: \"a\"\r\n");
        let part = resume("GET / HTTP/1.1\r\nRange: bytes=50-\r\nIf-Match: \"a\"\r\n", PART).unwrap();
        assert_eq!(part.lines(4), b"Range: bytes=54-59\r\n", "its own condition holds");
    }

    #[test]
    fn only_the_exact_rest_continues_an_answer() {
        let whole = resume("GET / HTTP/1.1\r\n", OK).unwrap();
        for (response, expected) in [
            ("206 X\r\nETag: \"a\"\r\nContent-Range: bytes 40-99/100\r\nContent-Length: 60", true),
            ("200 X\r\nETag: \"a\"\r\nContent-Range: bytes 40-99/100\r\nContent-Length: 60", false),
            ("206 X\r\nETag: \"b\"\r\nContent-Range: bytes 40-99/100\r\nContent-Length: 60", false),
            ("206 X\r\nContent-Range: bytes 40-99/100\r\nContent-Length: 60", false),
            ("206 X\r\nETag: \"a\"\r\nContent-Range: bytes 41-99/100\r\nContent-Length: 60", false),
            ("206 X\r\nETag: \"a\"\r\nContent-Range: bytes 40-99/101\r\nContent-Length: 60", false),
            ("206 X\r\nETag: \"a\"\r\nContent-Range: bytes 40-98/100\r\nContent-Length: 59", false),
            ("412 X\r\nContent-Length: 60", false),
        ] {
            let (_, response) =
                heads("GET / HTTP/1.1\r\nHost: a\r\n\r\n", &format!("HTTP/1.1 {response}\r\n\r\n"));
            assert_eq!(whole.is_continued_by(&response, 40), expected, "{response:?}");
        }
    }
}
