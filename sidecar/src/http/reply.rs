//! Answers of the sidecar itself: plain text that says what is wrong and what to do.

use std::io::Write as _;

use http::StatusCode;

use super::message::BadRequest;

/// Sets change in seconds, so clients may soon ask again.
const RETRY_AFTER: &str = "Retry-After: 5\r\n";

/// A place may be free in a moment.
const RETRY_SOON: &str = "Retry-After: 1\r\n";

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
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(bad) => bad.status(),
            Self::NoBackend { .. } | Self::Full { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    /// Writes the whole answer. `connection` is the value of that field, where one is wanted.
    pub(super) fn write(&self, out: &mut Vec<u8>, bodiless: bool, connection: Option<&str>) {
        let mut text = self.to_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let (status, length) = (self.status(), text.len());
        // Writing to a Vec cannot fail.
        let _ = write!(
            out,
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n"
        );
        match self {
            Self::NoBackend { .. } => out.extend_from_slice(RETRY_AFTER.as_bytes()),
            Self::Full { .. } => out.extend_from_slice(RETRY_SOON.as_bytes()),
            _ => {}
        }
        if let Some(connection) = connection {
            let _ = write!(out, "Connection: {connection}\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless {
            out.extend_from_slice(text.as_bytes());
        }
    }
}
