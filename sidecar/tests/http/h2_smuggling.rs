//! Requests in HTTP/2 that would be two, or another one, in HTTP/1.1: frames as an attacker writes them.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Backend, Sidecar, h2::H2Client, in_time, until};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Of the frames that end a request: HEADERS of an answer, RST_STREAM and GOAWAY.
const ENDS: [u8; 3] = [1, 3, 7];

const GOOD: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":authority", "app"), (":path", "/")];

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Fields as literals, whatever is in them.
fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let text = |out: &mut Vec<u8>, text: &str| {
        match u8::try_from(text.len()) {
            Ok(length @ ..127) => out.push(length),
            _ => out.extend([127, u8::try_from(text.len() - 127).unwrap()]),
        }
        out.extend(text.as_bytes());
    };
    let mut out = Vec::new();
    for (name, value) in fields {
        out.push(0);
        text(&mut out, name);
        text(&mut out, value);
    }
    out
}

/// What came back for a request.
#[derive(Debug, PartialEq)]
enum Answer {
    /// 200, and perhaps a body.
    Good,
    Refused,
}

/// Sends a request with this body, or without one, and reads until it is answered or the connection ends.
async fn send(sidecar: &Sidecar, fields: &[(&str, &str)], body: Option<&str>) -> Answer {
    let mut stream = TcpStream::connect(sidecar.address()).await.unwrap();
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend(frame(4, 0, 0, &[]));
    let ended = u8::from(body.is_none());
    bytes.extend(frame(1, 4 | ended, 1, &block(fields)));
    if let Some(body) = body {
        bytes.extend(frame(0, 1, 1, body.as_bytes()));
    }
    stream.write_all(&bytes).await.unwrap();
    let reading = async {
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).await.is_err() {
                return Answer::Refused;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let mut payload = vec![0; length];
            if stream.read_exact(&mut payload).await.is_err() {
                return Answer::Refused;
            }
            if ENDS.contains(&head[3]) {
                // 0x88 is :status 200.
                return if head[3] == 1 && payload.first() == Some(&0x88) {
                    Answer::Good
                } else {
                    Answer::Refused
                };
            }
        }
    };
    in_time("the end of a request", reading).await
}

/// The good request with one field replaced, or added where there is none.
fn with<'a>(name: &'a str, value: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut fields = GOOD.to_vec();
    match fields.iter_mut().find(|(known, _)| *known == name) {
        Some(field) => field.1 = value,
        None => fields.push((name, value)),
    }
    fields
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    GOOD.iter().copied().filter(|(known, _)| *known != name).collect()
}

const EVIL: &str = "a\r\n\r\nGET /evil HTTP/1.1\r\nHost: app\r\n\r\n";

#[tokio::test]
async fn the_attackers_own_good_request_is_served() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    assert_eq!(send(&sidecar, GOOD, Some("abc")).await, Answer::Good);
    assert_eq!(send(&sidecar, &with("content-length", "3"), Some("abc")).await, Answer::Good);
    assert_eq!(send(&sidecar, &with("host", "app"), None).await, Answer::Good);
    assert_eq!(send(&sidecar, &with("host", "evil"), None).await, Answer::Refused);
    assert_eq!(backend.requests().len(), 3);
    let refused = "sidecar_http_refused_total{listener=\"test\",cause=\"BadRequest\"}";
    assert_eq!(sidecar.metric(refused), Some(1.0), "what is refused is counted");
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_never_reaches_a_backend() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let twice = |field: (&'static str, &'static str)| [GOOD, &[field]].concat();
    let mut cases = vec![
        without(":method"),
        without(":scheme"),
        without(":path"),
        without(":authority"),
        twice((":method", "GET")),
        twice((":path", "/evil")),
        twice((":authority", "evil")),
        twice((":scheme", "https")),
        twice((":status", "200")),
        twice((":evil", "1")),
        [&[("x-a", "1")], GOOD].concat(),
        [GOOD, &[("host", "app"), ("host", "app")]].concat(),
        [GOOD, &[("content-length", "3"), ("content-length", "4")]].concat(),
        [GOOD, &[("content-length", "3"), ("content-length", "3")]].concat(),
    ];
    for (name, value) in [
        ("x-a", EVIL),
        ("x-a", "a\r\nx-b: 1"),
        ("x-a", "a\nx-b: 1"),
        ("x-a", "a\rx-b: 1"),
        ("x-a", "a\0b"),
        ("x-a\r\nx-b", "1"),
        ("x-a: 1\r\nx-b", "1"),
        ("x a", "1"),
        ("x:a", "1"),
        ("X-A", "1"),
        ("", "1"),
        ("transfer-encoding", "chunked"),
        ("transfer-encoding", "identity"),
        ("transfer-encoding ", "chunked"),
        ("connection", "close"),
        ("connection", "content-length"),
        ("proxy-connection", "keep-alive"),
        ("keep-alive", "5"),
        ("upgrade", "websocket"),
        ("te", "chunked"),
        ("host", "evil"),
        ("content-length", "+3"),
        ("content-length", "-3"),
        ("content-length", "3, 3"),
        ("content-length", "0x3"),
        ("content-length", "3;"),
        ("content-length", ""),
        ("content-length", "18446744073709551619"),
        (":path", "/ HTTP/1.1\r\nHost: app\r\n\r\nGET /evil"),
        (":path", "/a b"),
        (":path", "/a\tb"),
        (":path", "/a\r\nx-b: 1"),
        (":path", ""),
        (":path", "evil"),
        (":path", "http://evil/"),
        (":path", "?a"),
        (":method", "GET /evil HTTP/1.1\r\nHost: app\r\n\r\nGET"),
        (":method", "GET "),
        (":method", ""),
        (":method", "CONNECT"),
        (":authority", EVIL),
        (":authority", "a b"),
        (":authority", "a/evil"),
        (":authority", "user@app"),
        (":authority", "app\0"),
        (":scheme", "http\r\nx"),
    ] {
        cases.push(with(name, value));
    }
    for fields in cases {
        let answer = send(&sidecar, &fields, Some("abc")).await;
        assert_eq!(answer, Answer::Refused, "{fields:?}");
        assert!(backend.requests().is_empty(), "{fields:?}: {:?}", backend.requests());
    }
    until("nothing is left", || sidecar.listener.requests() == 0 && sidecar.listener.idle()).await;
    let client = H2Client::connect(sidecar.address()).await;
    assert_eq!(client.get("/").await.text(), "ok", "others are served");
}

#[tokio::test]
async fn a_preface_is_followed_by_frames_or_by_nothing() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let mut stream = TcpStream::connect(sidecar.address()).await.unwrap();
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nGET /evil HTTP/1.1\r\nHost: app\r\n\r\n")
        .await
        .unwrap();
    let mut rest = Vec::new();
    // A reset is an end too.
    let _ = in_time("the end", stream.read_to_end(&mut rest)).await;
    assert!(!rest.starts_with(b"HTTP/1.1") && backend.requests().is_empty());
}

#[tokio::test]
async fn a_body_of_another_length_is_never_a_whole_one() {
    for (length, body) in
        [("5", "abc"), ("3", "abcGET /evil HTTP/1.1\r\nHost: app\r\n\r\n"), ("0", "abc"), ("1000000", "")]
    {
        let backend = Backend::answering(OK).await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        assert_eq!(send(&sidecar, &with("content-length", length), Some(body)).await, Answer::Refused);
        until("nothing is left", || sidecar.listener.requests() == 0 && sidecar.listener.idle()).await;
        let requests = backend.requests();
        assert!(requests.len() <= 1, "{requests:?}");
        assert!(requests.iter().all(|request| request.start == "POST / HTTP/1.1"), "{requests:?}");
    }
    // The same with a head that ends the stream.
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    assert_eq!(send(&sidecar, &with("content-length", "3"), None).await, Answer::Refused);
    assert!(backend.requests().is_empty());
}

#[tokio::test]
async fn trailers_that_frame_or_route_a_message_are_refused() {
    for (name, value) in
        [("content-length", "3"), ("transfer-encoding", "chunked"), ("host", "evil"), (":path", "/evil")]
    {
        let backend = Backend::answering(OK).await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let mut stream = TcpStream::connect(sidecar.address()).await.unwrap();
        let bytes = [
            &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
            &frame(4, 0, 0, &[]),
            &frame(1, 4, 1, &block(GOOD)),
            &frame(0, 0, 1, b"abc"),
            &frame(1, 5, 1, &block(&[(name, value)])),
        ];
        stream.write_all(&bytes.concat()).await.unwrap();
        until("it has come to its end", || sidecar.listener.connections() == 1).await;
        drop(stream);
        until("nothing is left", || sidecar.listener.requests() == 0 && sidecar.listener.idle()).await;
        assert!(
            backend.requests().iter().all(|request| request.trailers.is_empty()),
            "{:?}",
            backend.requests()
        );
    }
}

/// Method, path, fields and body of a request.
type Case<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)], Option<&'a str>);

#[tokio::test]
async fn a_backend_sees_the_same_request_in_either_protocol() {
    let backend = Backend::answering(OK).await;
    let sidecar = Sidecar::start(&[backend.address]).await;
    let long = "x".repeat(100_000);
    let cases: [Case<'_>; 12] = [
        ("GET", "/", &[], None),
        ("HEAD", "//a//b/../c?x=%2f&&y", &[("accept-encoding", "gzip,  br;q=0")], None),
        (
            "GET",
            "/%00%ff;a=b?",
            &[("cookie", "a=1; b=2"), ("authorization", "AWS4-HMAC-SHA256 Credential=a/b")],
            None,
        ),
        ("POST", "/", &[("content-length", "3")], Some("abc")),
        ("POST", "/", &[("content-length", "0")], None),
        ("POST", "/", &[("transfer-encoding", "chunked")], Some("abc")),
        (
            "PUT",
            "/a+b%2bc",
            &[("content-length", "100000"), ("content-encoding", "aws-chunked")],
            Some(&long),
        ),
        ("PATCH", "/", &[("x-a", ""), ("x-b", "1  2"), ("x-a", "3")], None),
        ("DELETE", "/", &[("te", "trailers")], None),
        ("OPTIONS", "*", &[], None),
        ("QUERY", "/?q", &[("x-nonascii", "\u{e4}\u{f6}")], None),
        ("GET", "/", &[("range", "bytes=1-2"), ("if-match", "\"a\"")], None),
    ];
    for (method, path, fields, body) in cases {
        let seen = backend.requests().len();
        let mut plain = sidecar.client().await;
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: app\r\n");
        for (name, value) in fields {
            head += &format!("{name}: {value}\r\n");
        }
        let chunked = fields.contains(&("transfer-encoding", "chunked"));
        let body_text = body.unwrap_or_default();
        let text = if chunked {
            format!("{:x}\r\n{body_text}\r\n0\r\n\r\n", body_text.len())
        } else {
            body_text.to_owned()
        };
        plain.send(format!("{head}\r\n{text}")).await;
        plain.receive_head().await;

        let pseudo = [(":method", method), (":scheme", "http"), (":authority", "app"), (":path", path)];
        let plain_fields: Vec<_> =
            fields.iter().copied().filter(|(name, _)| *name != "transfer-encoding").collect();
        let fields = [&pseudo[..], &plain_fields].concat();
        assert_eq!(send_long(&sidecar, &fields, body).await, Answer::Good, "{method} {path}");

        until("both have come", || backend.requests().len() == seen + 2).await;
        until("both are whole", || {
            backend.requests()[seen..].iter().all(|request| request.body.len() == body_text.len())
        })
        .await;
        let [mut first, mut second] =
            [&backend.requests()[seen], &backend.requests()[seen + 1]].map(Clone::clone);
        first.headers.sort();
        second.headers.sort();
        assert_eq!((&first.start, &first.headers), (&second.start, &second.headers));
        assert!(first.body == second.body && first.chunked == second.chunked);
    }
}

/// [`send`] for bodies of any length, which a client with windows sends.
async fn send_long(sidecar: &Sidecar, fields: &[(&str, &str)], body: Option<&str>) -> Answer {
    let Some(body) = body.filter(|body| body.len() > 1000) else { return send(sidecar, fields, body).await };
    let value = |wanted: &str| fields.iter().find(|(name, _)| *name == wanted).unwrap().1;
    let uri = format!("http://{}{}", value(":authority"), value(":path"));
    let mut request = http::Request::builder().method(value(":method")).uri(uri);
    for (name, value) in fields.iter().filter(|(name, _)| !name.starts_with(':')) {
        request = request.header(*name, *value);
    }
    let client = H2Client::connect(sidecar.address()).await;
    let answer = client.send(request.body(()).unwrap(), body.to_owned()).await.unwrap();
    if answer.status() == 200 { Answer::Good } else { Answer::Refused }
}
