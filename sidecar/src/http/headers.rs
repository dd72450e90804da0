//! What a proxy must change in a head, and nothing else. Pure.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// A request that cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("CONNECT is not supported: send requests to this address as if it were the backend")]
    Connect,
    #[error("the request must have one Host header")]
    Host,
    #[error("the request's target must be a path or a whole URL")]
    Target,
}

/// What else the forward step must know of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Wishes {
    /// Asks to change the protocol, as WebSocket does.
    pub(super) upgrade: bool,
    /// Waits for 100 Continue before it sends its body.
    pub(super) continues: bool,
}

/// Makes a request ready for a backend: hop-by-hop headers go, everything else stays as it is and where it is.
pub(super) fn prepare_request<B>(request: &mut Request<B>) -> Result<Wishes, BadRequest> {
    if request.method() == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let authority = take_authority(request)?;
    let old = request.version() < Version::HTTP_11;
    let headers = request.headers_mut();
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(_), None) => {}
        (None, None) if old => {
            // HTTP/1.1 towards the backend needs one; an empty one is right for a target without authority.
            headers.insert(header::HOST, HeaderValue::from_static(""));
        }
        _ => return Err(BadRequest::Host),
    }
    if let Some(authority) = authority {
        headers.insert(header::HOST, authority);
    }
    let upgrade = !old && is_upgrade(headers);
    let trailers = has_token(headers, &header::TE, "trailers");
    remove_hop_by_hop(headers, upgrade);
    remove_false_length(headers);
    if trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if !upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
    }
    let continues = !old && has_token(headers, &header::EXPECT, "100-continue");
    *request.version_mut() = Version::HTTP_11;
    Ok(Wishes { upgrade, continues })
}

/// A target that is a whole URL, as clients of proxies send it, becomes a path. Its authority then counts, and not the Host
/// header; else two readers could see two hosts.
fn take_authority<B>(request: &mut Request<B>) -> Result<Option<HeaderValue>, BadRequest> {
    let uri = request.uri();
    let Some(authority) = uri.authority() else { return Ok(None) };
    let (Some(_), Some(path)) = (uri.scheme(), uri.path_and_query().cloned()) else {
        return Err(BadRequest::Target);
    };
    let host = authority.as_str().rsplit('@').next().unwrap_or_default();
    let host = HeaderValue::from_str(host).map_err(|_| BadRequest::Target)?;
    *request.uri_mut() = path.into();
    Ok(Some(host))
}

/// Makes a response ready for the client. `upgraded`: it switches protocols, and says so.
pub(super) fn prepare_response(headers: &mut HeaderMap, upgraded: bool) {
    remove_hop_by_hop(headers, upgraded);
    remove_false_length(headers);
}

/// Chunks win over a length; both together would let two readers see two messages.
fn remove_false_length(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
}

/// Sent twice, it does no more than sent once, and it has no body of which a part could be lost.
pub(super) fn is_replayable(method: &Method, without_body: bool) -> bool {
    without_body && (method.is_safe() && method != Method::TRACE)
}

/// An offer to go on in HTTP/2 is none: Java's client makes one with each first request, and is content with HTTP/1.1.
fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(header::UPGRADE)
        && !has_token(headers, &header::UPGRADE, "h2c")
        && has_token(headers, &header::CONNECTION, "upgrade")
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers.get_all(name).iter().flat_map(tokens).any(|found| found.eq_ignore_ascii_case(token))
}

/// The members of a comma-separated header. A value that is not text has none.
fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value.to_str().unwrap_or_default().split(',').map(str::trim).filter(|token| !token.is_empty())
}

/// Hop-by-hop is what `Connection` names, and a few that never were anything else. Transfer-Encoding stays, since the
/// connection's own encoder acts on it.
fn remove_hop_by_hop(headers: &mut HeaderMap, upgrade: bool) {
    let usual =
        [header::CONNECTION, KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS, header::TE, header::UPGRADE];
    if !usual.iter().any(|name| headers.contains_key(name)) {
        return;
    }
    let named: Vec<String> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter(|token| !is_protected(token))
        .map(str::to_ascii_lowercase)
        .collect();
    let goes = |name: &HeaderName| usual.contains(name) || named.iter().any(|named| named == name.as_str());
    let protocol = upgrade.then(|| headers.get(header::UPGRADE).cloned()).flatten();
    // HeaderMap::remove would move the last header into the gap.
    let mut name = None;
    let mut kept = HeaderMap::with_capacity(headers.capacity());
    for (next, value) in headers.drain() {
        name = next.or(name);
        if let Some(name) = name.as_ref().filter(|name| !goes(name)) {
            kept.append(name.clone(), value);
        }
    }
    if let Some(protocol) = protocol {
        kept.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        kept.insert(header::UPGRADE, protocol);
    }
    *headers = kept;
}

/// End-to-end headers that a `Connection` header must not take away: without them the message would mean another.
fn is_protected(token: &str) -> bool {
    ["host", "content-length", "transfer-encoding", "authorization", "expect"]
        .iter()
        .any(|name| token.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn request(headers: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::new(());
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("bucket.example.com"));
        for (name, value) in headers {
            request.headers_mut().append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request
    }

    fn shown<B>(request: &Request<B>) -> Vec<String> {
        request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .filter(|line| !line.starts_with("host"))
            .collect()
    }

    #[test]
    fn hop_by_hop_headers_go_and_the_rest_stays_in_order() {
        let mut request = request(&[
            ("connection", "keep-alive, X-Private"),
            ("x-amz-date", "20261122"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("accept-encoding", "identity"),
            ("proxy-connection", "close"),
            ("x-amz-meta", "a"),
            ("x-amz-meta", "b"),
        ]);
        assert_eq!(prepare_request(&mut request), Ok(Wishes::default()));
        assert_eq!(
            shown(&request),
            ["x-amz-date: 20261122", "accept-encoding: identity", "x-amz-meta: a", "x-amz-meta: b"]
        );
    }

    #[test]
    fn a_connection_header_cannot_take_away_what_frames_or_signs_the_message() {
        let mut request =
            request(&[("connection", "host, Content-Length, authorization"), ("content-length", "3")]);
        prepare_request(&mut request).unwrap();
        assert_eq!(shown(&request), ["content-length: 3"]);
        assert!(request.headers().contains_key(header::HOST));
    }

    #[test]
    fn an_upgrade_is_passed_on() {
        let mut request = request(&[("connection", "Upgrade"), ("upgrade", "websocket")]);
        assert_eq!(prepare_request(&mut request), Ok(Wishes { upgrade: true, continues: false }));
        assert_eq!(shown(&request), ["connection: upgrade", "upgrade: websocket"]);
    }

    #[test]
    fn an_upgrade_that_connection_does_not_name_is_not() {
        let mut request = request(&[("upgrade", "h2c")]);
        assert_eq!(prepare_request(&mut request), Ok(Wishes::default()));
        assert_eq!(shown(&request), [""; 0]);
    }

    #[test]
    fn an_offer_of_http2_is_left_out() {
        let mut request = request(&[
            ("connection", "Upgrade, HTTP2-Settings"),
            ("http2-settings", "AAEAAEAAAAIAAAAB"),
            ("upgrade", "h2c"),
            ("user-agent", "Java-http-client/21"),
        ]);
        assert_eq!(prepare_request(&mut request), Ok(Wishes::default()));
        assert_eq!(shown(&request), ["user-agent: Java-http-client/21"]);
    }

    #[test]
    fn a_length_beside_chunks_is_dropped() {
        let mut request = request(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        prepare_request(&mut request).unwrap();
        assert_eq!(shown(&request), ["transfer-encoding: chunked"]);
        let mut response = HeaderMap::new();
        response.insert(header::CONTENT_LENGTH, HeaderValue::from_static("3"));
        response.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        prepare_response(&mut response, false);
        assert_eq!(response.keys().collect::<Vec<_>>(), [&header::TRANSFER_ENCODING]);
    }

    #[test]
    fn one_host_is_wanted() {
        let mut two = request(&[("host", "other")]);
        assert_eq!(prepare_request(&mut two), Err(BadRequest::Host));
        let mut none = Request::new(());
        assert_eq!(prepare_request(&mut none), Err(BadRequest::Host));
        *none.version_mut() = Version::HTTP_10;
        assert_eq!(prepare_request(&mut none), Ok(Wishes::default()));
    }

    #[test]
    fn a_whole_url_becomes_a_path_and_its_authority_the_host() {
        for (target, path, host) in [
            (
                "http://user:word@data.example.com:9000//a%2Fb/../c?x=%20&&",
                "//a%2Fb/../c?x=%20&&",
                "data.example.com:9000",
            ),
            ("http://data.example.com", "/", "data.example.com"),
            ("//a%2Fb?x", "//a%2Fb?x", "bucket.example.com"),
            ("*", "*", "bucket.example.com"),
        ] {
            let mut request = request(&[]);
            *request.uri_mut() = target.parse().unwrap();
            prepare_request(&mut request).unwrap();
            assert_eq!(
                (request.uri().to_string().as_str(), &request.headers()[header::HOST]),
                (path, &HeaderValue::from_static(host))
            );
        }
        let mut request = request(&[]);
        *request.uri_mut() = "data.example.com:9000".parse().unwrap();
        assert_eq!(prepare_request(&mut request), Err(BadRequest::Target));
    }

    #[test]
    fn only_safe_requests_without_body_are_replayable() {
        for (method, without_body, expected) in [
            (Method::GET, true, true),
            (Method::HEAD, true, true),
            (Method::OPTIONS, true, true),
            (Method::GET, false, false),
            (Method::PUT, true, false),
            (Method::DELETE, true, false),
            (Method::POST, true, false),
        ] {
            assert_eq!(is_replayable(&method, without_body), expected, "{method} {without_body}");
        }
    }

    proptest! {
        #[test]
        fn end_to_end_headers_are_never_changed(
            values in prop::collection::vec("[!-~]([ -~]{0,20}[!-~])?", 0..8), connection in "[a-z, -]{0,30}",
        ) {
            let mut request = request(&[]);
            for (index, value) in values.iter().enumerate() {
                let name = HeaderName::try_from(format!("x-amz-{}", index % 3)).unwrap();
                request.headers_mut().append(name, HeaderValue::from_str(value).unwrap());
            }
            let before = shown(&request);
            request.headers_mut().insert(header::CONNECTION, HeaderValue::from_str(&connection).unwrap());
            prop_assert!(prepare_request(&mut request).is_ok());
            prop_assert_eq!(before, shown(&request));
        }
    }
}
