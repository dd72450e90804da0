//! The head of a response: read from a backend, written for a client.

use std::{mem::MaybeUninit, ops::Range};

use super::{
    Framing, MAX_FIELDS, MAX_HEAD, Method, RequestHead, Version,
    fields::{Fields, Known},
    framing::Ambiguous,
    request::reason,
};

/// A response's head. Reused from response to response.
#[derive(Debug, Default)]
pub(in crate::http) struct ResponseHead {
    pub(in crate::http) fields: Fields,
    /// 100 to 999.
    pub(in crate::http) status: u16,
    pub(in crate::http) framing: Framing,
    /// The backend takes another request on the connection.
    pub(in crate::http) keep_alive: bool,
    reason: Range<usize>,
}

/// A response that cannot be passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum BadResponse {
    #[error("its answer is not HTTP/1.1: {0}")]
    Syntax(&'static str),
    #[error("a line of its answer's head ends without a carriage return")]
    BareLineFeed,
    #[error("the head of its answer is larger than {} KiB, or has or names more than {MAX_FIELDS} fields", MAX_HEAD / 1024)]
    TooLarge,
    #[error("its answer has Content-Lengths that contradict each other, or one that is no number")]
    Length,
    #[error("its answer has a Transfer-Encoding other than chunked")]
    Coding,
    #[error("its answer switched protocols unasked")]
    Switched,
}

impl ResponseHead {
    /// Reads the answer to `request` from the front of some bytes, and gives its length; none while it is incomplete.
    pub(in crate::http) fn parse(
        &mut self,
        bytes: &[u8],
        request: &RequestHead,
    ) -> Result<Option<usize>, BadResponse> {
        let mut headers = [const { MaybeUninit::uninit() }; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut []);
        let parsed = httparse::ParserConfig::default().parse_response_with_uninit_headers(
            &mut response,
            bytes,
            &mut headers,
        );
        let length = match parsed {
            Ok(httparse::Status::Complete(length)) if length <= MAX_HEAD => length,
            Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => return Ok(None),
            Ok(_) | Err(httparse::Error::TooManyHeaders) => return Err(BadResponse::TooLarge),
            Err(error) => return Err(BadResponse::Syntax(reason(error))),
        };
        let version = Version::of(response.version);
        self.status = response.code.unwrap_or_default();
        if self.status < 100 {
            return Err(BadResponse::Syntax(reason(httparse::Error::Status)));
        }
        let phrase = response.reason.unwrap_or_default();
        let start = (phrase.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
        self.reason = if phrase.is_empty() { 0..0 } else { start..start + phrase.len() };
        let summary =
            self.fields.take(&bytes[..length], response.headers).ok_or(BadResponse::BareLineFeed)?;
        if summary.names_too_many {
            return Err(BadResponse::TooLarge);
        }
        let bodiless =
            self.status < 200 || matches!(self.status, 204 | 304) || request.method == Method::Head;
        self.framing = if bodiless {
            Framing::None
        } else {
            Framing::of_response(version, &summary).map_err(|ambiguous| match ambiguous {
                Ambiguous::Length => BadResponse::Length,
                Ambiguous::Coding | Ambiguous::Both => BadResponse::Coding,
            })?
        };
        if self.status == 101 && !request.upgrade {
            return Err(BadResponse::Switched);
        }
        let old = version == Version::Http10;
        self.keep_alive =
            !summary.close && (!old || summary.keep_alive) && self.framing != Framing::UntilClose;
        Ok(Some(length))
    }

    /// The server waited in vain for a request, and closes.
    pub(in crate::http) fn is_idle_timeout(&self) -> bool {
        self.status == 408 && !self.keep_alive
    }

    /// An answer that comes before the real one.
    pub(in crate::http) fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Writes the head for a client that asked with `request`. `framing` is how the body goes on to it, which differs from how
    /// it came where the client does not know chunks, or its end would be the connection's.
    pub(in crate::http) fn write(
        &self,
        out: &mut Vec<u8>,
        request: &RequestHead,
        framing: Framing,
        close: bool,
    ) {
        out.extend_from_slice(b"HTTP/1.1 ");
        let digit = |value: u16| b'0' + (value % 10) as u8;
        out.extend_from_slice(&[digit(self.status / 100), digit(self.status / 10), digit(self.status), b' ']);
        out.extend_from_slice(&self.fields.text()[self.reason.clone()]);
        out.extend_from_slice(b"\r\n");
        let chunked = self.framing == Framing::Chunked;
        let rechunked = framing != self.framing;
        self.fields.write_end_to_end(out, |known, _| match known {
            Known::ContentLength => chunked || self.status == 204,
            Known::TransferEncoding => rechunked,
            _ => false,
        });
        if rechunked && framing == Framing::Chunked {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        }
        if self.status == 101 {
            self.fields.write_upgrade(out);
        } else if close {
            out.extend_from_slice(b"Connection: close\r\n");
        } else if request.version == Version::Http10 && self.status >= 200 {
            out.extend_from_slice(b"Connection: keep-alive\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}
