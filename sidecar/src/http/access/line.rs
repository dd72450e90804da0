//! One line of the access log: facts -> bytes. Each field is in every line, and none holds a header that can be secret.

use std::time::Duration;

use crds::config::AccessLogFormat;

use super::redact::Redact;
use crate::telemetry::line::{Line, Pieces};

/// Bytes of a path, of a host and of a user agent that are written, at most.
const MOST_PATH: usize = 4096;
const MOST_TEXT: usize = 256;

/// What is told of one request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Facts<'a> {
    /// RFC 3339, when the head had been read.
    pub(super) time: &'a [u8],
    pub(super) listener: &'a str,
    pub(super) client: Option<&'a str>,
    pub(super) method: Option<&'a [u8]>,
    pub(super) host: Option<&'a [u8]>,
    /// With its query.
    pub(super) path: Option<&'a [u8]>,
    pub(super) status: Option<u16>,
    /// Of the request's body, from the client.
    pub(super) received: u64,
    /// Of the answer's body, to the client.
    pub(super) sent: u64,
    /// Until the last byte of the answer was sent.
    pub(super) duration: Duration,
    pub(super) site: Option<&'a str>,
    pub(super) backend: Option<&'a str>,
    /// Backends that were tried.
    pub(super) tries: u32,
    pub(super) trace: Option<&'a [u8]>,
    pub(super) user_agent: Option<&'a [u8]>,
    /// Why the sidecar answered itself, or the answer broke off; why a check was not good.
    pub(super) cause: Option<&'a str>,
    pub(super) kind: Kind,
}

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Request,
    /// One that the sidecar makes of a backend.
    Check,
}

impl Kind {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Request => b"Request",
            Self::Check => b"Check",
        }
    }
}

/// Appends one line.
pub(super) fn write(out: &mut Vec<u8>, format: AccessLogFormat, redact: &Redact, facts: &Facts<'_>) {
    let mut line = Line::new(out, format);
    line.token("time", Some(facts.time));
    line.text("listener", Some(facts.listener.as_bytes()));
    line.token("client", facts.client.map(str::as_bytes));
    line.text("method", cut(facts.method, MOST_TEXT));
    line.text("host", cut(facts.host, MOST_TEXT));
    let path = cut(facts.path, MOST_PATH);
    line.pieces("path", path.map(|path| |to: &mut Pieces<'_>| redact.pieces(path, |piece| to.piece(piece))));
    line.number("status", facts.status.map(u64::from));
    line.number("receivedBytes", Some(facts.received));
    line.number("sentBytes", Some(facts.sent));
    line.seconds("durationSeconds", Some(facts.duration));
    line.text("site", facts.site.map(str::as_bytes));
    line.text("backend", facts.backend.map(str::as_bytes));
    line.number("tries", Some(facts.tries.into()));
    line.token("trace", facts.trace);
    line.text("userAgent", cut(facts.user_agent, MOST_TEXT));
    line.token("cause", facts.cause.map(str::as_bytes));
    line.token("kind", Some(facts.kind.name()));
    line.end();
}

fn cut(bytes: Option<&[u8]>, most: usize) -> Option<&[u8]> {
    bytes.map(|bytes| bytes.get(..most).unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const NOTHING: Facts<'_> = Facts {
        time: b"2026-11-22T05:30:00.123Z",
        listener: "web",
        client: None,
        method: None,
        host: None,
        path: None,
        status: None,
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        site: None,
        backend: None,
        tries: 0,
        trace: None,
        user_agent: None,
        cause: None,
        kind: Kind::Request,
    };

    fn line(format: AccessLogFormat, facts: &Facts<'_>) -> String {
        let mut out = Vec::new();
        write(&mut out, format, &Redact::new(&[]), facts);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn both_formats_tell_the_same_of_a_request() {
        let backend = "10.0.0.7:9000";
        let facts = Facts {
            client: Some("127.0.0.1:40000"),
            method: Some(b"PUT"),
            host: Some(b"data:9000"),
            path: Some(b"/b/o?uploadId=1&X-Amz-Signature=0af"),
            status: Some(200),
            received: 1024,
            sent: 7,
            duration: Duration::from_micros(1_000_042),
            site: Some("primary"),
            backend: Some(backend),
            tries: 2,
            trace: Some(b"0af7651916cd43dd8448eb211c80319c"),
            user_agent: Some(b"aws-sdk \"x\""),
            ..NOTHING
        };
        assert_eq!(
            line(AccessLogFormat::Json, &facts),
            "{\"time\":\"2026-11-22T05:30:00.123Z\",\"listener\":\"web\",\"client\":\"127.0.0.1:40000\",\"method\":\"PUT\",\
             \"host\":\"data:9000\",\"path\":\"/b/o?uploadId=1&X-Amz-Signature=REDACTED\",\"status\":200,\"receivedBytes\":1024,\
             \"sentBytes\":7,\"durationSeconds\":1.000042,\"site\":\"primary\",\"backend\":\"10.0.0.7:9000\",\"tries\":2,\
             \"trace\":\"0af7651916cd43dd8448eb211c80319c\",\"userAgent\":\"aws-sdk \\\"x\\\"\",\"cause\":null,\"kind\":\"Request\"}\n"
        );
        assert_eq!(
            line(AccessLogFormat::Text, &facts),
            "time=2026-11-22T05:30:00.123Z listener=web client=127.0.0.1:40000 method=PUT host=data:9000 \
             path=\"/b/o?uploadId=1&X-Amz-Signature=REDACTED\" status=200 receivedBytes=1024 sentBytes=7 \
             durationSeconds=1.000042 site=primary backend=10.0.0.7:9000 tries=2 trace=0af7651916cd43dd8448eb211c80319c \
             userAgent=\"aws-sdk \\\"x\\\"\" cause=- kind=Request\n"
        );
    }

    proptest! {
        #[test]
        fn a_request_is_one_line_whatever_its_bytes(
            path in prop::collection::vec(any::<u8>(), 0..60), agent in prop::collection::vec(any::<u8>(), 0..60),
            micros in 0u64..10_000_000,
        ) {
            let facts = Facts {
                path: Some(&path),
                user_agent: Some(&agent),
                duration: Duration::from_micros(micros),
                ..NOTHING
            };
            let text = line(AccessLogFormat::Text, &facts);
            prop_assert_eq!(text.find('\n'), Some(text.len() - 1));
            let json = line(AccessLogFormat::Json, &facts);
            prop_assert_eq!(json.find('\n'), Some(json.len() - 1));
            let value: Value = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(value["userAgent"].as_str().unwrap(), String::from_utf8_lossy(&agent));
            prop_assert_eq!(value["durationSeconds"].as_f64().unwrap(), micros as f64 / 1e6);
        }
    }

    #[test]
    fn a_long_path_makes_no_long_line() {
        let path = [b'/'; 60_000];
        let facts = Facts { path: Some(&path), user_agent: Some(&path), host: Some(&path), ..NOTHING };
        assert!(line(AccessLogFormat::Json, &facts).len() < MOST_PATH + 2 * MOST_TEXT + 512);
    }
}
