//! The head of a request: read strictly, written for a backend.

use std::{mem::MaybeUninit, ops::Range};

use http::StatusCode;

use super::{
    Framing, MAX_FIELDS, MAX_HEAD, Version,
    fields::{Fields, Known, Summary},
    framing::Ambiguous,
};

/// The methods that a proxy must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::http) enum Method {
    #[default]
    Get,
    Head,
    Options,
    Connect,
    Other,
}

/// A request's head. Reused from request to request.
#[derive(Debug, Default)]
pub(in crate::http) struct RequestHead {
    pub(in crate::http) fields: Fields,
    pub(in crate::http) method: Method,
    pub(in crate::http) framing: Framing,
    /// The client knows chunks, and may send another request.
    pub(in crate::http) version: Version,
    pub(in crate::http) keep_alive: bool,
    /// Asks to change the protocol, as WebSocket does.
    pub(in crate::http) upgrade: bool,
    /// Waits for `100 Continue` before it sends its body.
    pub(in crate::http) continues: bool,
    /// The client takes trailers.
    trailers: bool,
    method_end: usize,
    /// What goes to a backend, in the head's bytes.
    path: Range<usize>,
    /// Of a target that is a whole URL, as clients of proxies send it: it counts, and not the Host field.
    authority: Option<Range<usize>>,
    no_host: bool,
}

/// A request that cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum BadRequest {
    #[error("this is not an HTTP/1.1 request: {0}")]
    Syntax(&'static str),
    #[error("a line of the request's head ends without a carriage return")]
    BareLineFeed,
    #[error("the request's head is larger than {} KiB, or has or names more than {MAX_FIELDS} fields", MAX_HEAD / 1024)]
    TooLarge,
    #[error("CONNECT is not supported: send requests to this address as if it were the backend")]
    Connect,
    #[error("the request must have one Host header")]
    Host,
    #[error("the request's target must be a path or a whole URL")]
    Target,
    #[error("the request must have one Content-Length, and that a number")]
    Length,
    #[error("the request's Transfer-Encoding must be chunked alone, in HTTP/1.1")]
    Coding,
    #[error("the request has a Content-Length beside its Transfer-Encoding")]
    LengthAndCoding,
    #[error("the chunks of the request's body are malformed")]
    Chunks,
    #[error("the request's body ended early")]
    CutShort,
    #[error("the request's target or Host cannot be written in HTTP/2, which the backend is asked in")]
    NotHttp2,
    #[error("nothing of the request's body has come for a long time")]
    Stalled,
}

/// What is changed in a head beside what every proxy must change.
#[derive(Debug, Default, Clone, Copy)]
pub(in crate::http) struct Edits<'a> {
    /// Fields that are left out, in lower case.
    pub(in crate::http) without: &'a [&'a str],
    /// More of them, in any case.
    pub(in crate::http) removed: &'a [String],
    /// Whole lines that are added at the end.
    pub(in crate::http) extra: &'a [u8],
}

impl BadRequest {
    pub(in crate::http) fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::Coding => StatusCode::NOT_IMPLEMENTED,
            Self::Stalled => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}

impl RequestHead {
    /// Reads a head from the front of some bytes, and gives its length; none while it is incomplete.
    pub(in crate::http) fn parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, BadRequest> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut []);
        let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadRequest::TooLarge),
            Err(error) => return Err(BadRequest::Syntax(reason(error))),
        };
        let (method, target) = (request.method.unwrap_or_default(), request.path.unwrap_or_default());
        self.version = Version::of(request.version);
        // Empty lines before a request are allowed; they are no part of it.
        let start = method.as_ptr() as usize - bytes.as_ptr() as usize;
        let head = &bytes[start..length];
        let summary = self.fields.take(head, request.headers).ok_or(BadRequest::BareLineFeed)?;
        self.method_end = method.len();
        self.method = match method {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        };
        let target_start = target.as_ptr() as usize - head.as_ptr() as usize;
        self.take_target(target_start..target_start + target.len())?;
        self.judge(&summary)?;
        Ok(Some(length))
    }

    fn take_target(&mut self, range: Range<usize>) -> Result<(), BadRequest> {
        if self.method == Method::Connect {
            return Err(BadRequest::Connect);
        }
        let target = &self.fields.text()[range.clone()];
        self.authority = None;
        self.path = range.clone();
        if target.starts_with(b"/") || target == b"*" {
            return Ok(());
        }
        let scheme = ["http://", "https://"]
            .iter()
            .find(|scheme| {
                target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme.as_bytes()))
            })
            .ok_or(BadRequest::Target)?;
        let rest = &target[scheme.len()..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let user = rest[..end].iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
        if user == end {
            return Err(BadRequest::Target);
        }
        let start = range.start + scheme.len();
        self.authority = Some(start + user..start + end);
        self.path = start + end..range.end;
        Ok(())
    }

    fn judge(&mut self, summary: &Summary) -> Result<(), BadRequest> {
        if summary.names_too_many {
            return Err(BadRequest::TooLarge);
        }
        let old = self.version == Version::Http10;
        self.no_host = summary.hosts == 0;
        if summary.hosts > 1 || self.no_host && !old {
            return Err(BadRequest::Host);
        }
        if self
            .host()
            .iter()
            .any(|byte| matches!(byte, b' ' | b'\t' | b',' | b'/' | b'\\' | b'@' | b'?' | b'#'))
        {
            return Err(BadRequest::Host);
        }
        self.framing = Framing::of_request(self.version, summary).map_err(|ambiguous| match ambiguous {
            Ambiguous::Length => BadRequest::Length,
            Ambiguous::Coding => BadRequest::Coding,
            Ambiguous::Both => BadRequest::LengthAndCoding,
        })?;
        self.keep_alive = !summary.close && (!old || summary.keep_alive);
        // An offer to go on in HTTP/2 is none: Java's client makes one with each first request, and is content with HTTP/1.1.
        let offers = self.fields.known(Known::Upgrade).next().is_some();
        self.upgrade = summary.upgrade && !old && offers && !self.fields.lists(Known::Upgrade, "h2c");
        self.continues = !old && self.fields.lists(Known::Expect, "100-continue");
        self.trailers = self.fields.lists(Known::Te, "trailers");
        Ok(())
    }

    /// Sent twice, it does no more than sent once, and it has no body of which a part could be lost.
    pub(in crate::http) fn is_replayable(&self) -> bool {
        matches!(self.method, Method::Get | Method::Head | Method::Options)
            && self.framing == Framing::None
            && !self.upgrade
    }

    pub(in crate::http) fn method(&self) -> &[u8] {
        &self.fields.text()[..self.method_end]
    }

    /// Its client understands answers in gRPC alone.
    pub(in crate::http) fn is_grpc(&self) -> bool {
        self.fields.get("content-type").is_some_and(|kind| kind.starts_with(b"application/grpc"))
    }

    /// Path and query as they came; `/` for a URL without path.
    pub(in crate::http) fn path(&self) -> &[u8] {
        let path = &self.fields.text()[self.path.clone()];
        if path.is_empty() { b"/" } else { path }
    }

    /// Host and port that the request is for; empty when it names none.
    pub(in crate::http) fn host(&self) -> &[u8] {
        match &self.authority {
            Some(authority) => &self.fields.text()[authority.clone()],
            None => self.fields.known(Known::Host).next().unwrap_or_default(),
        }
    }

    /// Writes the head for a backend.
    pub(in crate::http) fn write(&self, out: &mut Vec<u8>, edits: Edits<'_>) {
        out.extend_from_slice(self.method());
        out.push(b' ');
        let path = self.path();
        if !path.starts_with(b"/") && path != b"*" {
            // A URL without path but with a query.
            out.push(b'/');
        }
        out.extend_from_slice(path);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if self.authority.is_some() || self.no_host {
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(self.host());
            out.extend_from_slice(b"\r\n");
        }
        let is_left = |known: Known, name: &[u8]| {
            known == Known::Host && self.authority.is_some()
                || edits.without.iter().any(|left| name.eq_ignore_ascii_case(left.as_bytes()))
                || edits.removed.iter().any(|left| name.eq_ignore_ascii_case(left.as_bytes()))
        };
        self.fields.write_end_to_end(out, is_left);
        out.extend_from_slice(edits.extra);
        if self.trailers {
            out.extend_from_slice(b"TE: trailers\r\n");
        }
        match (self.upgrade, self.trailers) {
            (true, _) => self.fields.write_upgrade(out),
            (false, true) => out.extend_from_slice(b"Connection: te\r\n"),
            (false, false) => {}
        }
        out.extend_from_slice(b"\r\n");
    }
}

impl Fields {
    /// The lines by which a protocol is changed.
    pub(super) fn write_upgrade(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"Connection: Upgrade\r\n");
        for protocol in self.known(Known::Upgrade) {
            out.extend_from_slice(b"Upgrade: ");
            out.extend_from_slice(protocol);
            out.extend_from_slice(b"\r\n");
        }
    }
}

pub(super) fn reason(error: httparse::Error) -> &'static str {
    match error {
        httparse::Error::HeaderName => "a header's name has a character that it may not have",
        httparse::Error::HeaderValue => "a header's value has a character that it may not have",
        httparse::Error::NewLine => "a line ends in the wrong way",
        httparse::Error::Status => "its status is no number of three digits",
        httparse::Error::Token => "its first line is malformed",
        httparse::Error::TooManyHeaders => "it has too many headers",
        httparse::Error::Version => "its version is neither 1.1 nor 1.0",
    }
}
