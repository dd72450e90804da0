//! What is promised of heads on their way from one protocol into the other, whatever they say; a broken promise panics.

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header, request,
    uri::{Authority, PathAndQuery, Scheme},
};

use super::{
    download::Coding,
    fields::{append, read_request, read_response, write_request, write_response},
    upload::Rest,
};
use crate::http::message::{BadRequest, Edits, Framing, RequestHead, ResponseHead};

/// Left out by the one protocol, since the other has its own way to say it.
const OWN: [&str; 8] =
    ["connection", "cookie", "host", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade"];

/// A client's request is one request to the loop, to its last byte, or none; and to a backend it is the same again. Its first
/// line is `METHOD AUTHORITY PATH`, and the byte before it says whether a body follows.
pub fn h2_request(bytes: &[u8]) {
    let [choice, bytes @ ..] = bytes else { return };
    let ended = choice % 2 == 1;
    let Some(parts) = request(bytes) else { return };
    let mut out = Vec::new();
    let Ok(coding) = write_request(&mut out, &parts, ended) else { return };
    let mut head = RequestHead::default();
    match head.parse(&out) {
        Err(bad) => return assert_ne!(bad, BadRequest::BareLineFeed, "each line is one"),
        read => assert_eq!(read, Ok(Some(out.len())), "it is one request"),
    }
    assert_eq!(head.method(), parts.method.as_str().as_bytes());
    assert_eq!(Some(head.path()), parts.uri.path_and_query().map(|target| target.as_str().as_bytes()));
    if let Some(authority) = parts.uri.authority() {
        assert_eq!(head.host(), authority.as_str().as_bytes());
    }
    match head.framing {
        Framing::None => assert_eq!(coding, Coding::Plain),
        Framing::Length(_) => assert!(coding == Coding::Plain && !ended),
        Framing::Chunked => assert!(coding == Coding::Chunks && !ended),
        Framing::UntilClose => panic!("a request never ends so"),
    }
    for name in parts.headers.keys().filter(|name| !OWN.contains(&name.as_str())) {
        let sent = parts.headers.get_all(name).iter().map(|value| value.as_bytes().trim_ascii());
        assert!(head.fields.all(name.as_str()).eq(sent), "{name}");
    }
    to_backend(&head);
}

/// What the loop writes for a backend is the request that it has read, or cannot be sent.
fn to_backend(head: &RequestHead) {
    let mut written = Vec::new();
    head.write(&mut written, Edits::default());
    let Ok(read) = read_request(&written, &Scheme::HTTP) else { return };
    assert_eq!(read.length, written.len());
    let sent: &Request<()> = &read.head;
    assert_eq!(sent.method().as_str().as_bytes(), head.method());
    assert_eq!(sent.uri().path_and_query().map(|target| target.as_str().as_bytes()), Some(head.path()));
    let host = sent.uri().authority().map(|authority| authority.as_str().as_bytes());
    assert_eq!(host.unwrap_or_default(), head.host());
    assert!(ends_alike(&read.rest, head.framing));
    assert_eq!(stays_behind(sent.headers()), None);
}

/// The answer of a backend is one answer to the loop, which knows where it ends; and to a client it is the same again. Its
/// first line is its status, and the byte before it says whether a body follows and whether it answers a HEAD.
pub fn h2_answer(bytes: &[u8]) {
    let [choice, bytes @ ..] = bytes else { return };
    let (ended, bodiless) = (choice & 1 != 0, choice & 2 != 0);
    let Some(response) = response(bytes) else { return };
    let mut out = Vec::new();
    let coding = write_response(&mut out, &response, bodiless, ended);
    let mut asked = RequestHead::default();
    let method = if bodiless { "HEAD" } else { "GET" };
    let request = format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(asked.parse(request.as_bytes()), Ok(Some(request.len())));
    let mut head = ResponseHead::default();
    match head.parse(&out, &asked) {
        Err(_) => return,
        read => assert_eq!(read, Ok(Some(out.len())), "it is one answer"),
    }
    assert_eq!(head.status, response.status().as_u16());
    match head.framing {
        Framing::None => assert_eq!(coding, Coding::Plain),
        Framing::Length(_) => assert!(coding == Coding::Plain && !bodiless),
        Framing::Chunked => assert!(coding == Coding::Chunks && !bodiless && !ended),
        Framing::UntilClose => panic!("its end would be that of a connection"),
    }
    let mut written = Vec::new();
    head.write(&mut written, &asked, head.framing, false);
    let Ok(read) = read_response(&written, bodiless) else { return };
    assert_eq!((read.length, read.head.status()), (written.len(), response.status()));
    assert!(ends_alike(&read.rest, head.framing));
    assert_eq!(stays_behind(read.head.headers()), None);
}

/// Both know the same of the end.
fn ends_alike(rest: &Rest, framing: Framing) -> bool {
    match (rest, framing) {
        (Rest::Length(left), Framing::Length(length)) => *left == length,
        (Rest::Chunks(..), Framing::Chunked) | (Rest::Nothing, Framing::None) => true,
        _ => false,
    }
}

/// A field that HTTP/2 must not have.
fn stays_behind(fields: &HeaderMap) -> Option<&'static str> {
    let te = fields.get(header::TE).is_some_and(|te| te != HeaderValue::from_static("trailers"));
    let found = OWN.into_iter().find(|name| !matches!(*name, "cookie" | "te") && fields.contains_key(*name));
    found.or(te.then_some("te"))
}

/// A request as the frames of a stream can hold it: what they cannot is none.
fn request(bytes: &[u8]) -> Option<request::Parts> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut words = lines.next()?.splitn(3, |byte| *byte == b' ');
    let (method, authority, path) = (words.next()?, words.next()?, words.next()?);
    // All but CONNECT have a path.
    if path.is_empty() != (method == b"CONNECT") {
        return None;
    }
    let mut uri = http::uri::Parts::default();
    if !authority.is_empty() {
        uri.authority = Some(Authority::try_from(authority).ok()?);
    }
    if !path.is_empty() {
        uri.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    }
    uri.scheme = (!authority.is_empty() && !path.is_empty()).then_some(Scheme::HTTP);
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = Method::from_bytes(method).ok()?;
    parts.uri = Uri::from_parts(uri).ok()?;
    parts.headers = fields(lines)?;
    Some(parts)
}

fn response(bytes: &[u8]) -> Option<Response<()>> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_bytes(lines.next()?).ok()?;
    *response.headers_mut() = fields(lines)?;
    Some(response)
}

/// `name:value` on each line.
fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut fields = HeaderMap::new();
    for line in lines {
        let colon = memchr::memchr(b':', line)?;
        let name = std::str::from_utf8(&line[..colon]).ok()?;
        append(&mut fields, name, Bytes::copy_from_slice(&line[colon + 1..]))?;
    }
    Some(fields)
}
