//! Answers of the sidecar itself: plain text that says what is wrong and what to do, or what the listener's own paths say.

use std::io::Write as _;

use http::StatusCode;

use super::{
    message::BadRequest,
    own_paths::{OwnAnswer, TEXT},
};

/// Sets change in seconds, so clients may soon ask again.
const RETRY_AFTER: u32 = 5;

/// A place may be free in a moment.
const RETRY_SOON: u32 = 1;

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
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(bad) => bad.status(),
            Self::NoBackend { .. } | Self::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
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
            Self::Full { .. } => Some(RETRY_SOON),
            _ => None,
        };
        OwnAnswer { status: self.status(), content_type: TEXT, retry_after, body }
    }
}

/// Writes the whole answer. `connection` is the value of that field, where one is wanted.
pub(super) fn write(answer: &OwnAnswer, out: &mut Vec<u8>, bodiless: bool, connection: Option<&str>) {
    let OwnAnswer { status, content_type, retry_after, body } = answer;
    let length = body.len();
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n");
    if let Some(seconds) = retry_after {
        let _ = write!(out, "Retry-After: {seconds}\r\n");
    }
    if let Some(connection) = connection {
        let _ = write!(out, "Connection: {connection}\r\n");
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless {
        out.extend_from_slice(body.as_bytes());
    }
}
