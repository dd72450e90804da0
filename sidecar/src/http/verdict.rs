//! What an answer says of the backend that gave it. Pure.

use super::message::ResponseHead;
use crate::balance::Outcome;

/// How much of a body is looked at for S3's error code; error documents are shorter.
pub(super) const LOOKED_AT: usize = 4 * 1024;

/// What an answer means for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The backend did its work, whatever it says of the request.
    Served,
    /// S3 asks the client to slow down: it is for the client to hear, and no fault.
    SlowDown,
    /// The backend failed, in a way that the request may have caused: 500 and the like.
    Failed,
    /// The backend could not serve: 502, 503 and 504. Another one may.
    Unavailable,
}

impl Verdict {
    /// `body` is the beginning of the body; it matters for 503 alone.
    pub(super) fn of(response: &ResponseHead, body: &[u8]) -> Self {
        match response.status {
            503 if is_slow_down(response, body) => Self::SlowDown,
            502..=504 => Self::Unavailable,
            // What it does not implement is no failure of the backend.
            501 => Self::Served,
            500.. => Self::Failed,
            _ => Self::Served,
        }
    }

    /// What it says of the backend, if the whole answer comes.
    pub(super) fn outcome(self) -> Outcome {
        match self {
            Self::Served => Outcome::Good,
            Self::SlowDown => Outcome::Throttled,
            Self::Failed | Self::Unavailable => Outcome::ServerError,
        }
    }
}

/// Every 503 of MinIO has Retry-After, so that only the code tells.
fn is_slow_down(response: &ResponseHead, body: &[u8]) -> bool {
    const CODE: &[u8] = b"<Code>SlowDown";
    let named = |value: &[u8]| value.starts_with(b"SlowDown");
    response.fields.get("x-minio-error-code").is_some_and(named)
        || memchr::memmem::find(&body[..body.len().min(LOOKED_AT)], CODE).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::message::RequestHead;

    #[test]
    fn an_answer_tells_of_its_backend() {
        let mut request = RequestHead::default();
        request.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        let slow = "<?xml version=\"1.0\"?>\n<Error><Code>SlowDownRead</Code></Error>";
        let busy = "<Error><Code>ServiceUnavailable</Code></Error>";
        for (status, field, body, expected) in [
            (200, "", "", Verdict::Served),
            (404, "", "", Verdict::Served),
            (429, "", slow, Verdict::Served),
            (500, "", slow, Verdict::Failed),
            (501, "", "", Verdict::Served),
            (502, "", slow, Verdict::Unavailable),
            (503, "", "", Verdict::Unavailable),
            (503, "", busy, Verdict::Unavailable),
            (503, "", slow, Verdict::SlowDown),
            (503, "x-minio-error-code: SlowDownWrite\r\n", "", Verdict::SlowDown),
            (503, "x-minio-error-code: ServerNotInitialized\r\n", "", Verdict::Unavailable),
            (504, "", "", Verdict::Unavailable),
            (507, "", "", Verdict::Failed),
        ] {
            let mut response = ResponseHead::default();
            let head = format!("HTTP/1.1 {status} X\r\nRetry-After: 120\r\n{field}\r\n");
            response.parse(head.as_bytes(), &request).unwrap();
            assert_eq!(Verdict::of(&response, body.as_bytes()), expected, "{status} {field} {body}");
        }
        let mut response = ResponseHead::default();
        response.parse(b"HTTP/1.1 503 X\r\n\r\n", &request).unwrap();
        let late = [vec![b' '; LOOKED_AT], slow.into()].concat();
        assert_eq!(Verdict::of(&response, &late), Verdict::Unavailable, "beyond what is looked at");
    }
}
