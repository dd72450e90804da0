//! What a listener answers itself, as MinIO's sidekick does: path -> what is asked for -> answer. Pure.
//!
//! Only GET and HEAD are taken away from the backends: an object that is put to such a path reaches its bucket.

use std::fmt::Write as _;

use crds::config::SidekickPaths;
use http::StatusCode;

use super::message::Method;

/// What a client asks of the listener itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OwnPath {
    Health,
    Certificates,
    Metrics,
}

/// An answer that no backend has given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OwnAnswer {
    pub(super) status: StatusCode,
    pub(super) content_type: &'static str,
    /// Seconds after which to ask again.
    pub(super) retry_after: Option<u32>,
    /// More fields, each a whole line.
    pub(super) fields: String,
    pub(super) body: String,
}

pub(super) const TEXT: &str = "text/plain; charset=utf-8";
const XML: &str = "application/xml";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PEM: &str = "application/x-pem-file";

/// Clients of sidekick were told to wait this long.
const RETRY_AFTER: u32 = 120;

impl OwnPath {
    /// `path` is the raw one, with its query.
    pub(super) fn of(paths: SidekickPaths, method: Method, path: &[u8]) -> Option<Self> {
        if paths == SidekickPaths::default() || !matches!(method, Method::Get | Method::Head) {
            return None;
        }
        let (own, wanted) = match path.split(|byte| *byte == b'?').next() {
            Some(b"/v1/health") => (Self::Health, paths.health),
            Some(b"/v1/certificates") => (Self::Certificates, paths.certificates),
            Some(b"/.prometheus/metrics") => (Self::Metrics, paths.metrics),
            _ => return None,
        };
        wanted.then_some(own)
    }

    /// Whether whoever can connect may ask: those who watch the listener know no keys. What is told of its backends is not for
    /// all.
    pub(super) fn is_for_anyone(self) -> bool {
        match self {
            Self::Health | Self::Certificates => true,
            Self::Metrics => false,
        }
    }
}

impl OwnAnswer {
    fn ok(content_type: &'static str, body: String) -> Self {
        Self { status: StatusCode::OK, content_type, retry_after: None, fields: String::new(), body }
    }

    /// `live`: some site has a live backend; `reasons`: why none has.
    pub(super) fn health(live: bool, reasons: &str) -> Self {
        if live { Self::ok(TEXT, String::new()) } else { Self::backend_down(reasons, "/v1/health") }
    }

    /// `pem`: the certificate that the listener made for itself.
    pub(super) fn certificates(pem: Option<String>) -> Self {
        pem.map_or_else(
            || Self {
                status: StatusCode::NOT_FOUND,
                content_type: TEXT,
                retry_after: None,
                fields: String::new(),
                body: "this listener has made no certificate for itself\n".to_owned(),
            },
            |pem| Self::ok(PEM, pem),
        )
    }

    pub(super) fn metrics(page: String) -> Self {
        Self::ok(OPEN_METRICS, page)
    }

    /// The S3 error that sidekick's users expect. Resource is the path as the client wrote it.
    pub(super) fn backend_down(message: &str, resource: &str) -> Self {
        let mut body = String::from(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>BackendDown</Code><Message>",
        );
        escape(message.trim_end(), &mut body);
        body.push_str("</Message><Resource>");
        escape(resource, &mut body);
        body.push_str("</Resource></Error>\n");
        Self {
            status: StatusCode::BAD_GATEWAY,
            content_type: XML,
            retry_after: Some(RETRY_AFTER),
            fields: String::new(),
            body,
        }
    }
}

/// Text as XML's content: what XML 1.0 cannot hold at all becomes the replacement character.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        match character {
            '&' => into.push_str("&amp;"),
            '<' => into.push_str("&lt;"),
            '>' => into.push_str("&gt;"),
            '"' => into.push_str("&quot;"),
            '\'' => into.push_str("&apos;"),
            '\r' => {
                // Writing to a String cannot fail.
                let _ = write!(into, "&#13;");
            }
            '\t' | '\n' => into.push(character),
            '\0'..' ' | '\u{fffe}' | '\u{ffff}' => into.push('\u{fffd}'),
            _ => into.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: SidekickPaths = SidekickPaths { health: true, certificates: true, metrics: true };

    #[test]
    fn a_path_is_the_listeners_own_only_where_that_was_asked_for() {
        for (path, own) in [
            ("/v1/health", OwnPath::Health),
            ("/v1/certificates", OwnPath::Certificates),
            ("/.prometheus/metrics", OwnPath::Metrics),
        ] {
            assert_eq!(OwnPath::of(ALL, Method::Get, path.as_bytes()), Some(own));
            assert_eq!(OwnPath::of(ALL, Method::Head, format!("{path}?x=/").as_bytes()), Some(own));
            assert_eq!(OwnPath::of(SidekickPaths::default(), Method::Get, path.as_bytes()), None);
            for other in [
                format!("{path}/"),
                path.to_uppercase(),
                format!("/{path}"),
                format!("{path}%3f"),
                format!("/?{path}"),
            ] {
                assert_eq!(OwnPath::of(ALL, Method::Get, other.as_bytes()), None, "{other}");
            }
        }
    }

    #[test]
    fn an_object_put_to_an_own_path_reaches_its_bucket() {
        assert_eq!(OwnPath::of(ALL, Method::Other, b"/v1/health"), None);
    }

    #[test]
    fn a_down_answer_is_the_s3_error_and_nothing_of_the_request_is_markup() {
        let answer = OwnAnswer::backend_down("site \"a\": refused & gone\n", "/b/<x>'?\u{1}");
        assert_eq!((answer.status.as_u16(), answer.retry_after), (502, Some(120)));
        assert_eq!(
            answer.body,
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Code>BackendDown</Code><Message>site &quot;a&quot;: refused &amp; gone</Message>\
             <Resource>/b/&lt;x&gt;&apos;?\u{fffd}</Resource></Error>\n"
        );
    }

    #[test]
    fn health_and_certificates_say_what_there_is() {
        assert_eq!(OwnAnswer::health(true, "").status, StatusCode::OK);
        let down = OwnAnswer::health(false, "site a: refused");
        assert_eq!(down.status, StatusCode::BAD_GATEWAY);
        assert!(down.body.contains("<Resource>/v1/health</Resource>"), "{}", down.body);
        assert_eq!(OwnAnswer::certificates(None).status, StatusCode::NOT_FOUND);
        assert_eq!(OwnAnswer::certificates(Some("PEM".to_owned())).body, "PEM");
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_element(text in "\\PC{0,30}[<>&'\"]{0,5}") {
            let mut escaped = String::new();
            escape(&text, &mut escaped);
            prop_assert!(!escaped.contains(['<', '>', '"', '\'']));
        }
    }
}
