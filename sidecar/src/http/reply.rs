//! Answers of the sidecar itself: plain text that says what is wrong and what to do.

use http::{HeaderValue, Response, StatusCode, header};

use super::body::ResponseBody;

/// Sets change in seconds, so clients may soon ask again.
const RETRY_AFTER: HeaderValue = HeaderValue::from_static("5");

/// Why the sidecar answers instead of a backend.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("{0}")]
    BadRequest(#[from] super::headers::BadRequest),
    /// No site has a live backend; the reasons come one a line.
    #[error("listener {listener} has no live backend\n{reasons}")]
    NoBackend { listener: String, reasons: String },
    #[error("no backend of listener {listener} could serve the request\n{tries}")]
    Failed { listener: String, tries: String },
    #[error("no backend of listener {listener} answered in time\n{tries}")]
    TimedOut { listener: String, tries: String },
    #[error("a backend of listener {listener} switched protocols unasked")]
    Switched { listener: String },
    #[error("the request's body ended early")]
    BodyCutShort,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadRequest(_) | Self::BodyCutShort => StatusCode::BAD_REQUEST,
            Self::NoBackend { .. } => StatusCode::SERVICE_UNAVAILABLE,
            Self::Failed { .. } | Self::Switched { .. } => StatusCode::BAD_GATEWAY,
            Self::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
        }
    }

    pub(super) fn into_response(self) -> Response<ResponseBody> {
        let mut text = self.to_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let mut response = Response::new(ResponseBody::own(text));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        if let Self::NoBackend { .. } = self {
            headers.insert(header::RETRY_AFTER, RETRY_AFTER);
        }
        response
    }
}
