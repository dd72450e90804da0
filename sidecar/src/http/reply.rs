//! Answers of the sidecar itself: plain text that says what is wrong and what to do, or what the listener's own paths say.

use std::{io::Write as _, sync::Arc, time::Duration};

use crds::config::RateLimit;
use http::StatusCode;

use super::{
    message::BadRequest,
    own_paths::{OwnAnswer, TEXT},
};

/// Sets change in seconds, so clients may soon ask again.
const RETRY_AFTER: u32 = 5;

/// A place may be free in a moment.
const RETRY_SOON: u32 = 1;

/// RFC 6750, for a token that is good and does not say enough.
const INSUFFICIENT: &str = "WWW-Authenticate: Bearer realm=\"sidecar\", error=\"insufficient_scope\"\r\n";

/// Why the sidecar answers instead of a backend.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    BadRequest(#[from] BadRequest),
    /// No site has a live backend; the reasons come one a line.
    #[error("listener {listener} has no live backend\n{reasons}")]
    NoBackend { listener: String, reasons: String },
    #[error("every backend of listener {listener} has as many requests as its limits allow")]
    Full { listener: String },
    #[error("no backend of listener {listener} could serve the request\n{tries}")]
    Failed { listener: String, tries: String },
    #[error("no backend of listener {listener} answered in time\n{tries}")]
    TimedOut { listener: String, tries: String },
    #[error("these are more requests than the rate limit {} allows: {} in {}, and for the next one wait {wait:?}", .limit.name, .limit.requests, .limit.per)]
    RateLimited { limit: Arc<RateLimit>, wait: Duration },
    #[error("the request's body is larger than the {most} bytes that this listener lets through")]
    BodyTooLarge { most: u64 },
    #[error("this listener lets in clients that it knows: send {wanted}{bad}")]
    Unauthorized { wanted: String, challenge: String, bad: String },
    /// `token`: it was known by one.
    #[error("this listener knows the client, and does not let it in: an allow rule must name it")]
    Forbidden { token: bool },
    #[error("the keys that tokens are verified with could not be fetched so far; the sidecar's log says why")]
    NoKeys,
}

/// What a refusal is about, as the access log and metrics call it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    BadRequest,
    BodyTooLarge,
    RateLimited,
    Unauthorized,
    Forbidden,
    NoKeys,
    NoBackend,
    BackendsFull,
    BackendsFailed,
    TimedOut,
}

impl Cause {
    pub(super) const ALL: [Self; 10] = [
        Self::BadRequest,
        Self::BodyTooLarge,
        Self::RateLimited,
        Self::Unauthorized,
        Self::Forbidden,
        Self::NoKeys,
        Self::NoBackend,
        Self::BackendsFull,
        Self::BackendsFailed,
        Self::TimedOut,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::BadRequest => "BadRequest",
            Self::BodyTooLarge => "BodyTooLarge",
            Self::RateLimited => "RateLimited",
            Self::Unauthorized => "Unauthorized",
            Self::Forbidden => "Forbidden",
            Self::NoKeys => "NoKeys",
            Self::NoBackend => "NoBackend",
            Self::BackendsFull => "BackendsFull",
            Self::BackendsFailed => "BackendsFailed",
            Self::TimedOut => "TimedOut",
        }
    }
}

impl Refusal {
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(bad) => bad.status(),
            Self::NoBackend { .. } | Self::Full { .. } | Self::NoKeys => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unauthorized { .. } => StatusCode::UNAUTHORIZED,
            Self::Forbidden { .. } => StatusCode::FORBIDDEN,
        }
    }

    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::BadRequest(_) => Cause::BadRequest,
            Self::BodyTooLarge { .. } => Cause::BodyTooLarge,
            Self::NoBackend { .. } => Cause::NoBackend,
            Self::Full { .. } => Cause::BackendsFull,
            Self::Failed { .. } => Cause::BackendsFailed,
            Self::TimedOut { .. } => Cause::TimedOut,
            Self::RateLimited { .. } => Cause::RateLimited,
            Self::Unauthorized { .. } => Cause::Unauthorized,
            Self::Forbidden { .. } => Cause::Forbidden,
            Self::NoKeys => Cause::NoKeys,
        }
    }

    /// Backends were not there, or have failed the request.
    pub(super) fn blames_backends(&self) -> bool {
        matches!(self, Self::NoBackend { .. } | Self::Failed { .. } | Self::TimedOut { .. })
    }

    /// `resource` is the path that was asked for, where the application is to get the S3 error `BackendDown`.
    pub(super) fn answer(&self, resource: Option<&[u8]>) -> OwnAnswer {
        let mut body = self.to_string();
        if let Some(resource) = resource {
            return OwnAnswer::backend_down(&body, &String::from_utf8_lossy(resource));
        }
        if !body.ends_with('\n') {
            body.push('\n');
        }
        let retry_after = match self {
            Self::NoBackend { .. } => Some(RETRY_AFTER),
            Self::Full { .. } | Self::NoKeys => Some(RETRY_SOON),
            Self::RateLimited { wait, .. } => Some(seconds(*wait)),
            _ => None,
        };
        let fields = match self {
            Self::RateLimited { limit, wait } => limit_fields(limit, seconds(*wait)),
            Self::Unauthorized { challenge, .. } => format!("WWW-Authenticate: {challenge}\r\n"),
            Self::Forbidden { token: true } => INSUFFICIENT.to_owned(),
            _ => String::new(),
        };
        OwnAnswer { status: self.status(), content_type: TEXT, retry_after, fields, body }
    }
}

/// The content type of answers that are given in gRPC's terms: 200, with what happened in `grpc-status`.
pub(super) const GRPC: &str = "application/grpc";

/// Writes the whole answer. `connection` is the value of that field, where one is wanted.
pub(super) fn write(answer: &OwnAnswer, out: &mut Vec<u8>, bodiless: bool, connection: Option<&str>) {
    let OwnAnswer { status, content_type, retry_after, fields, body } = answer;
    let bodiless = bodiless || *content_type == GRPC;
    // Writing to a Vec cannot fail.
    if *content_type == GRPC {
        let code = grpc_code(*status);
        let _ = write!(
            out,
            "HTTP/1.1 200 OK\r\nContent-Type: {GRPC}\r\nContent-Length: 0\r\ngrpc-status: {code}\r\n"
        );
        out.extend_from_slice(b"grpc-message: ");
        write_grpc_message(out, body.trim_end());
        out.extend_from_slice(b"\r\n");
    } else {
        let length = body.len();
        let _ =
            write!(out, "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n");
    }
    if let Some(seconds) = retry_after {
        let _ = write!(out, "Retry-After: {seconds}\r\n");
    }
    out.extend_from_slice(fields.as_bytes());
    if let Some(connection) = connection {
        let _ = write!(out, "Connection: {connection}\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(body.as_bytes());
    }
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10, which count in seconds.
fn limit_fields(limit: &RateLimit, seconds: u32) -> String {
    let (name, requests, per) = (&limit.name, limit.requests, limit.per.as_std());
    let window = if per.subsec_nanos() == 0 { format!(";w={}", per.as_secs()) } else { String::new() };
    format!("RateLimit-Policy: \"{name}\";q={requests}{window}\r\nRateLimit: \"{name}\";r=0;t={seconds}\r\n")
}

/// Rounded up: who comes too early is refused again.
fn seconds(wait: Duration) -> u32 {
    u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).saturating_add(u32::from(wait.subsec_nanos() > 0))
}

/// The code of gRPC for a status, as its specification maps them.
fn grpc_code(status: StatusCode) -> u32 {
    match status {
        StatusCode::BAD_REQUEST => 13,
        StatusCode::UNAUTHORIZED => 16,
        StatusCode::FORBIDDEN => 7,
        StatusCode::NOT_FOUND => 12,
        StatusCode::PAYLOAD_TOO_LARGE => 8,
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => 14,
        _ => 2,
    }
}

/// Writes a text that may have anything in it.
fn write_grpc_message(out: &mut Vec<u8>, message: &str) {
    for byte in message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(byte),
            // Writing to a Vec cannot fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_place_in_the_row_that_is_counted_by() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place, "{}", cause.name());
        }
    }

    #[test]
    fn a_client_of_grpc_is_told_in_its_own_terms() {
        let full = Refusal::Full { listener: "a\u{e4}%".to_owned() };
        let mut out = Vec::new();
        write(&OwnAnswer { content_type: GRPC, ..full.answer(None) }, &mut out, false, None);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nContent-Length: 0\r\ngrpc-status: 14\r\n\
             grpc-message: every backend of listener a%C3%A4%25 has as many requests as its limits allow\r\n\
             Retry-After: 1\r\n\r\n"
        );
    }

    #[test]
    fn who_comes_again_after_the_seconds_he_was_told_is_not_too_early() {
        for (nanos, told) in [(0, 0), (1, 1), (1_000_000_000, 1), (1_000_000_001, 2)] {
            assert_eq!(seconds(Duration::from_nanos(nanos)), told, "{nanos} ns");
        }
    }
}
