//! Heads of HTTP/1.1 and of HTTP/2, into each other. Pure. What belongs to one connection stays behind.

use std::{io::Write as _, mem::MaybeUninit};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    download::{Coding, line},
    upload::Rest,
};

/// Fields of a head, the sidecar's own among them.
const MOST_FIELDS: usize = 160;

/// A request of HTTP/2 that HTTP/1.1 could not tell from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("its Host is not what :authority says, or there are several")]
    Host,
    #[error("its :path is no path")]
    Path,
    #[error("it announces a body, and has none")]
    Length,
}

/// Writes a client's head in HTTP/1.1, where the strict reader of the loop judges it once more. `ended`: there is no body.
pub(super) fn write_request(
    out: &mut Vec<u8>,
    parts: &request::Parts,
    ended: bool,
) -> Result<Coding, Malformed> {
    let host = host(parts)?;
    let length = parts.headers.get(header::CONTENT_LENGTH);
    if ended && length.is_some_and(|length| length.as_bytes() != b"0") {
        return Err(Malformed::Length);
    }
    let target = parts.uri.path_and_query().map(PathAndQuery::as_str);
    if target.is_some_and(|target| !target.starts_with('/') && target != "*") {
        // A whole URL would name another host.
        return Err(Malformed::Path);
    }
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.push(b' ');
    let authority = parts.uri.authority().map(Authority::as_str);
    out.extend_from_slice(target.or(authority).unwrap_or("*").as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(host) = host {
        line(out, "Host", host);
    }
    let mut crumbs = false;
    for (name, value) in &parts.headers {
        match *name {
            header::HOST | header::TRANSFER_ENCODING | header::CONNECTION | header::UPGRADE => {}
            // They may come in crumbs, which are one field in HTTP/1.1.
            header::COOKIE if crumbs => {}
            header::COOKIE => {
                crumbs = true;
                write_cookies(out, &parts.headers);
            }
            _ => line(out, name.as_str(), value.as_bytes()),
        }
    }
    let coding = if ended || length.is_some() { Coding::Plain } else { Coding::Chunks };
    if coding == Coding::Chunks {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    out.extend_from_slice(b"\r\n");
    Ok(coding)
}

/// The one name that a request is for.
fn host(parts: &request::Parts) -> Result<Option<&[u8]>, Malformed> {
    let mut fields = parts.headers.get_all(header::HOST).iter().map(HeaderValue::as_bytes);
    let (field, another) = (fields.next(), fields.next());
    let authority = parts.uri.authority().map(|authority| authority.as_str().as_bytes());
    let differs = matches!((authority, field), (Some(a), Some(b)) if !a.eq_ignore_ascii_case(b));
    if another.is_some() || differs { Err(Malformed::Host) } else { Ok(authority.or(field)) }
}

fn write_cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    out.extend_from_slice(b"cookie: ");
    for (index, crumb) in headers.get_all(header::COOKIE).iter().enumerate() {
        if index > 0 {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(crumb.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes the head of a backend's answer in HTTP/1.1. `bodiless`: what was asked for has none.
pub(super) fn write_response(
    out: &mut Vec<u8>,
    response: &Response<()>,
    bodiless: bool,
    ended: bool,
) -> Coding {
    let status = response.status();
    // Writing to a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for (name, value) in response.headers() {
        if *name != header::TRANSFER_ENCODING && *name != header::CONNECTION {
            line(out, name.as_str(), value.as_bytes());
        }
    }
    let bodiless = bodiless
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let told = bodiless || response.headers().contains_key(header::CONTENT_LENGTH);
    let coding = if told || ended { Coding::Plain } else { Coding::Chunks };
    match (told, coding) {
        (true, _) => {}
        (false, Coding::Plain) => out.extend_from_slice(b"content-length: 0\r\n"),
        (false, Coding::Chunks) => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    coding
}

/// A head of HTTP/1.1 with how its body is told.
pub(super) struct Read<T> {
    pub(super) head: T,
    pub(super) rest: Rest,
    /// Bytes of the head.
    pub(super) length: usize,
}

/// Why a head cannot be read.
pub(super) enum Unread {
    Partial,
    Malformed,
}

/// Reads the head of a request that goes to a backend, which `scheme` says how to reach.
pub(super) fn read_request(bytes: &[u8], scheme: &Scheme) -> Result<Read<Request<()>>, Unread> {
    let mut headers = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut request = httparse::Request::new(&mut []);
    let length = complete(request.parse_with_uninit_headers(bytes, &mut headers))?;
    let head = Bytes::copy_from_slice(&bytes[..length]);
    let mut fields = Taken::new(request.headers.len());
    for field in &*request.headers {
        fields.take(field, shared(&head, bytes, field.value)).ok_or(Unread::Malformed)?;
    }
    if fields.is_grpc() {
        fields.headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
    let method = Method::from_bytes(request.method.unwrap_or_default().as_bytes());
    let path = request.path.unwrap_or_default();
    let target = PathAndQuery::from_maybe_shared(shared(&head, bytes, path.as_bytes()));
    let (Ok(method), Ok(target)) = (method, target) else { return Err(Unread::Malformed) };
    if target.as_str() != path {
        // A fragment, which would be lost.
        return Err(Unread::Malformed);
    }
    let mut message = Request::new(());
    *message.method_mut() = method;
    *message.uri_mut() = uri(scheme, fields.host.take(), target).ok_or(Unread::Malformed)?;
    let rest = fields.rest();
    *message.headers_mut() = fields.headers;
    Ok(Read { head: message, rest, length })
}

fn uri(scheme: &Scheme, host: Option<Bytes>, target: PathAndQuery) -> Option<Uri> {
    let Some(host) = host.filter(|host| !host.is_empty()) else { return Some(target.into()) };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.clone());
    parts.authority = Some(Authority::from_maybe_shared(host).ok()?);
    parts.path_and_query = Some(target);
    Uri::from_parts(parts).ok()
}

/// Reads the head of an answer that goes to a client. `bodiless`: what was asked for has no body.
pub(super) fn read_response(bytes: &[u8], bodiless: bool) -> Result<Read<Response<()>>, Unread> {
    let mut headers = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut response = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    let length = complete(config.parse_response_with_uninit_headers(&mut response, bytes, &mut headers))?;
    let head = Bytes::copy_from_slice(&bytes[..length]);
    let mut fields = Taken::new(response.headers.len());
    for field in &*response.headers {
        fields.take(field, shared(&head, bytes, field.value)).ok_or(Unread::Malformed)?;
    }
    let status = StatusCode::from_u16(response.code.unwrap_or_default()).map_err(|_| Unread::Malformed)?;
    let mut message = Response::new(());
    *message.status_mut() = status;
    let bodiless = bodiless
        || status.is_informational()
        || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let rest = if bodiless { Rest::Nothing } else { fields.rest() };
    *message.headers_mut() = fields.headers;
    Ok(Read { head: message, rest, length })
}

fn complete(parsed: httparse::Result<usize>) -> Result<usize, Unread> {
    match parsed {
        Ok(httparse::Status::Complete(length)) => Ok(length),
        Ok(httparse::Status::Partial) => Err(Unread::Partial),
        Err(_) => Err(Unread::Malformed),
    }
}

/// The same part of a copy of the bytes, without another copy.
fn shared(copy: &Bytes, bytes: &[u8], part: &[u8]) -> Bytes {
    let start = (part.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize);
    match start.checked_add(part.len()) {
        Some(end) if !part.is_empty() && end <= copy.len() => copy.slice(start..end),
        _ => Bytes::copy_from_slice(part),
    }
}

/// The fields of a head, sorted.
struct Taken {
    headers: HeaderMap,
    host: Option<Bytes>,
    length: Option<u64>,
    chunked: bool,
}

impl Taken {
    fn new(count: usize) -> Self {
        Self { headers: HeaderMap::with_capacity(count), host: None, length: None, chunked: false }
    }

    fn take(&mut self, field: &httparse::Header<'_>, value: Bytes) -> Option<()> {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        match field.name.len() {
            2 if is("te") && !value.eq_ignore_ascii_case(b"trailers") => return Some(()),
            4 if is("host") => {
                self.host = Some(value);
                return Some(());
            }
            7 if is("upgrade") => return Some(()),
            10 if is("connection") || is("keep-alive") => return Some(()),
            14 if is("content-length") => self.length = Some(std::str::from_utf8(&value).ok()?.parse().ok()?),
            16 if is("proxy-connection") => return Some(()),
            17 if is("transfer-encoding") => {
                self.chunked = true;
                return Some(());
            }
            _ => {}
        }
        append(&mut self.headers, field.name, value)
    }

    fn is_grpc(&self) -> bool {
        let kind = self.headers.get(header::CONTENT_TYPE);
        kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
    }

    fn rest(&self) -> Rest {
        match (self.chunked, self.length) {
            (true, _) => Rest::chunks(),
            (false, None | Some(0)) => Rest::Nothing,
            (false, Some(length)) => Rest::Length(length),
        }
    }
}

/// Adds a field; none if it cannot stand in a head.
pub(super) fn append(headers: &mut HeaderMap, name: &str, value: Bytes) -> Option<()> {
    let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
    let value = HeaderValue::from_maybe_shared(value).ok()?;
    headers.try_append(name, value).ok().map(drop)
}

#[cfg(test)]
#[path = "fields_tests.rs"]
mod tests;
