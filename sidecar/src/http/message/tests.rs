use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<RequestHead, BadRequest> {
    let mut head = RequestHead::default();
    assert_eq!(head.parse(text.as_bytes())?, Some(text.len()), "{text}");
    Ok(head)
}

/// The head that goes to the backend, without its last empty line.
fn forwarded(text: &str) -> Vec<String> {
    let mut out = Vec::new();
    parse(text).unwrap().write(&mut out, Edits::default());
    lines(&out)
}

fn lines(head: &[u8]) -> Vec<String> {
    let text = String::from_utf8(head.to_vec()).unwrap();
    text.strip_suffix("\r\n\r\n").unwrap().split("\r\n").map(str::to_owned).collect()
}

fn answer(request: &str, response: &str) -> Result<(RequestHead, ResponseHead), BadResponse> {
    let (request, mut head) = (parse(request).unwrap(), ResponseHead::default());
    assert_eq!(head.parse(response.as_bytes(), &request)?, Some(response.len()), "{response}");
    Ok((request, head))
}

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn hop_by_hop_fields_go_and_the_rest_keeps_its_bytes_and_its_order() {
    assert_eq!(
        forwarded(
            "PUT //b/a%2Fb+c/../d?X=%2f&& HTTP/1.1\r\nHost: Bucket:9000\r\nConnection: keep-alive, X-Private\r\n\
             X-Amz-Date:20261122\r\nx-private: 1\r\nKeep-Alive: timeout=5\r\nAccept-Encoding:  identity;q=1,  gzip\r\n\
             Proxy-Connection: close\r\nX-Amz-Meta: b\r\nX-Amz-Meta: a\r\nContent-Length: 3\r\n\r\n"
        ),
        [
            "PUT //b/a%2Fb+c/../d?X=%2f&& HTTP/1.1",
            "Host: Bucket:9000",
            "X-Amz-Date:20261122",
            "Accept-Encoding:  identity;q=1,  gzip",
            "X-Amz-Meta: b",
            "X-Amz-Meta: a",
            "Content-Length: 3",
        ]
    );
}

#[test]
fn a_connection_field_cannot_take_away_what_frames_signs_or_introduces_the_message() {
    let lines = forwarded(
        "PUT / HTTP/1.1\r\nHost: a\r\nConnection: host, Content-Length, authorization, expect\r\n\
         Authorization: AWS4\r\nContent-Length: 3\r\n\r\n",
    );
    assert_eq!(lines[1..], ["Host: a", "Authorization: AWS4", "Content-Length: 3"]);
    let lines = forwarded(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-real-ip, X-Forwarded-For, traceparent\r\n\
         X-Real-IP: 1.1.1.1\r\nX-Forwarded-For: 1.1.1.1\r\nTraceparent: 00\r\n\r\n",
    );
    assert_eq!(lines[2..], ["X-Real-IP: 1.1.1.1", "X-Forwarded-For: 1.1.1.1", "Traceparent: 00"]);
}

#[test]
fn an_upgrade_is_passed_on_only_where_it_is_one() {
    let upgrade =
        |fields: &str| forwarded(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"))[2..].to_vec();
    assert_eq!(
        upgrade("Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"),
        ["Connection: Upgrade", "Upgrade: websocket"]
    );
    let nothing: [&str; 0] = [];
    assert_eq!(upgrade("Upgrade: websocket\r\n"), nothing, "Connection does not name it");
    let offer = "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEA\r\n";
    assert_eq!(upgrade(offer), nothing, "an offer of HTTP/2");
}

#[test]
fn trailers_are_asked_for_where_the_client_takes_them() {
    let lines = forwarded("GET / HTTP/1.1\r\nHost: a\r\nTE: gzip;q=1, trailers\r\nConnection: TE\r\n\r\n");
    assert_eq!(lines[2..], ["TE: trailers", "Connection: te"]);
}

#[test]
fn a_whole_url_becomes_a_path_and_its_authority_the_host() {
    for (target, path, host) in [
        ("http://user:word@data:9000//a%2Fb/../c?x=%20&&", "//a%2Fb/../c?x=%20&&", "data:9000"),
        ("HTTP://data", "/", "data"),
        ("https://data?x", "/?x", "data"),
        ("//a%2Fb?x", "//a%2Fb?x", "bucket"),
        ("*", "*", "bucket"),
    ] {
        let lines = forwarded(&format!("GET {target} HTTP/1.1\r\nHost: bucket\r\n\r\n"));
        assert_eq!(lines, [format!("GET {path} HTTP/1.1"), format!("Host: {host}")]);
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    use BadRequest::*;
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", Host),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", Host),
        ("GET a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("GET http://u@/x HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", Connect),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            LengthAndCoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
            LengthAndCoding,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Coding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Coding),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            Coding,
        ),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", Coding),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n", Syntax("")),
        ("POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", Coding),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x3\r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \r\n\r\n", Length),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n", Length),
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n\n", BareLineFeed),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n", Syntax("")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", Syntax("")),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Syntax("")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\rc\r\n\r\n", Syntax("")),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n", Syntax("")),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Syntax("")),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Syntax("")),
        ("GET / HTTP/1.1 x\r\nHost: a\r\n\r\n", Syntax("")),
        ("\x16\x03\x01\x02\0\x01\0\x01", Syntax("")),
    ] {
        let refused = RequestHead::default().parse(request.as_bytes()).unwrap_err();
        match expected {
            Syntax(_) => assert!(matches!(refused, Syntax(_)), "{request:?}: {refused}"),
            expected => assert_eq!(refused, expected, "{request:?}"),
        }
    }
}

#[test]
fn a_head_has_bounds() {
    let fields = |count: usize| format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "x: 1\r\n".repeat(count));
    assert!(parse(&fields(MAX_FIELDS - 1)).is_ok());
    assert_eq!(parse(&fields(MAX_FIELDS)).unwrap_err(), BadRequest::TooLarge);
    let mut endless = "GET / HTTP/1.1\r\nHost: a\r\nx: ".to_owned();
    endless.push_str(&"1".repeat(MAX_HEAD));
    assert_eq!(RequestHead::default().parse(endless.as_bytes()).unwrap_err(), BadRequest::TooLarge);
}

#[test]
fn connections_last_as_the_version_says() {
    for (version, connection, expected) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let head = parse(&format!("GET / HTTP/{version}\r\nHost: a\r\n{connection}\r\n")).unwrap();
        assert_eq!(head.keep_alive, expected, "{version} {connection}");
    }
}

#[test]
fn only_safe_requests_without_body_are_replayable() {
    for (method, fields, expected) in [
        ("GET", "", true),
        ("HEAD", "", true),
        ("OPTIONS", "", true),
        ("GET", "Content-Length: 0\r\n", true),
        ("GET", "Content-Length: 1\r\n", false),
        ("GET", "Connection: upgrade\r\nUpgrade: websocket\r\n", false),
        ("TRACE", "", false),
        ("PUT", "", false),
        ("DELETE", "", false),
        ("get", "", false),
    ] {
        let head = parse(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).unwrap();
        assert_eq!(head.is_replayable(), expected, "{method} {fields}");
    }
}

#[test]
fn the_end_of_an_answer_is_told_by_status_method_and_fields() {
    use Framing::*;
    let post = "POST / HTTP/1.1\r\nHost: a\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (request, response, framing, keep_alive) in [
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", Length(3), true),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None, true),
        (GET, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", Length(3), true),
        (GET, "HTTP/1.1 200\r\n\r\n", UntilClose, false),
        (post, "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nContent-Length: 3\r\n\r\n", Chunked, true),
        (head, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", None, true),
        (head, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None, true),
        (GET, "HTTP/1.1 204 No Content\r\n\r\n", None, true),
        (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", None, true),
        (GET, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\n", Length(3), false),
        (GET, "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\n", Length(3), false),
        (GET, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 3\r\n\r\n", Length(3), true),
    ] {
        let (_, head) = answer(request, response).unwrap();
        assert_eq!((head.framing, head.keep_alive), (framing, keep_alive), "{response}");
    }
}

#[test]
fn an_answer_that_cannot_be_trusted_is_refused() {
    use BadResponse::*;
    for (response, expected) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Length),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Coding),
        ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Coding),
        ("HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\n", BareLineFeed),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", Switched),
        ("HTTP/1.1 099 What\r\n\r\n", Syntax("")),
        ("SSH-2.0-OpenSSH_9.9\r\n", Syntax("")),
        ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Syntax("")),
    ] {
        let refused = ResponseHead::default().parse(response.as_bytes(), &parse(GET).unwrap()).unwrap_err();
        match expected {
            Syntax(_) => assert!(matches!(refused, Syntax(_)), "{response:?}: {refused}"),
            expected => assert_eq!(refused, expected, "{response:?}"),
        }
    }
}

#[test]
fn an_answer_keeps_its_bytes_and_says_how_its_body_goes_on() {
    let old = "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    for (request, response, framing, close, expected) in [
        (
            GET,
            "HTTP/1.1 206 Teil\r\nETag:\"a\"\r\nSet-Cookie: b\r\nset-cookie: a\r\nKeep-Alive: 5\r\nConnection: x\r\nX: 1\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            false,
            &["HTTP/1.1 206 Teil", "ETag:\"a\"", "Set-Cookie: b", "set-cookie: a", "Content-Length: 3"][..],
        ),
        (
            GET,
            "HTTP/1.0 200 OK\r\n\r\n",
            Framing::Chunked,
            false,
            &["HTTP/1.1 200 OK", "Transfer-Encoding: chunked"],
        ),
        (
            GET,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::Chunked,
            true,
            &["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "Connection: close"],
        ),
        (
            old,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            Framing::UntilClose,
            true,
            &["HTTP/1.1 200 OK", "Connection: close"],
        ),
        (
            old,
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n",
            Framing::Length(3),
            false,
            &["HTTP/1.1 200 OK", "Content-Length: 3", "Connection: keep-alive"],
        ),
    ] {
        let (request, head) = answer(request, response).unwrap();
        let mut out = Vec::new();
        head.write(&mut out, &request, framing, close);
        assert_eq!(lines(&out), expected);
    }
}

#[test]
fn chunks_that_could_end_elsewhere_are_refused() {
    for body in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "+1\r\na\r\n0\r\n\r\n",
        "0x1\r\na\r\n",
        " 1\r\na\r\n",
        "1 \r\na\r\n",
        "1\na\r\n",
        "1\r\na\n",
        "1\r\nab\r\n",
        "1;x\ny\r\na\r\n",
        "1;x\ry\r\na\r\n",
        "0\r\nx\r\n\r\n",
        "0\r\n x: 1\r\n\r\n",
        "0\r\nx : 1\r\n\r\n",
        "0\r\nx: 1\n\r\n",
        "0\r\nContent-Length: 1\r\n\r\n",
        "0\r\ntransfer-encoding: chunked\r\n\r\n",
        "0\r\n\n",
        "11111111111111111\r\n",
        "ffffffffffffffff\r\n",
    ] {
        let mut chunks = Chunks::default();
        assert_eq!(chunks.scan(body.as_bytes()), Err(BadChunks), "{body:?}");
    }
    let endless = format!("1;{}", "x".repeat(400));
    assert_eq!(Chunks::default().scan(endless.as_bytes()), Err(BadChunks));
}

proptest! {
    #[test]
    fn a_chunked_body_ends_where_it_ends_however_it_is_cut(
        data in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..50), 0..8),
        trailers in prop::collection::vec("[a-z]{1,20}", 0..3),
        extension in prop::option::of("[a-z=]{0,9}"),
        next in prop::collection::vec(any::<u8>(), 0..20),
        cuts in prop::collection::vec(1usize..30, 1..60),
    ) {
        let extension = extension.map(|text| format!(";{text}")).unwrap_or_default();
        let mut body = Vec::new();
        for chunk in &data {
            body.extend_from_slice(format!("{:X}{extension}\r\n", chunk.len()).as_bytes());
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n");
        let forbidden = ["content-length", "transfer-encoding", "host", "connection"];
        for name in trailers.iter().filter(|name| !forbidden.contains(&name.as_str())) {
            body.extend_from_slice(format!("{name}: 1\r\n").as_bytes());
        }
        body.extend_from_slice(b"\r\n");
        let length = body.len();
        body.extend_from_slice(&next);

        let (mut chunks, mut at, mut found, mut ended) = (Chunks::default(), 0, Vec::new(), None);
        let mut cuts = cuts.iter().cycle();
        while at < body.len() && ended.is_none() {
            let end = (at + cuts.next().unwrap()).min(body.len());
            match chunks.step(&body[at..end]).unwrap() {
                Part::Data(run) => { found.extend_from_slice(&body[at..at + run]); at += run; }
                Part::Coding(run) => at += run,
                Part::End(run) => { at += run; ended = Some(at); }
            }
        }
        prop_assert_eq!(ended, Some(length));
        prop_assert_eq!(found, data.concat());
        prop_assert_eq!(Chunks::default().scan(&body), Ok((length, true)));
    }

    #[test]
    fn end_to_end_fields_are_never_changed(
        values in prop::collection::vec("[!-~]([ -~]{0,20}[!-~])?", 0..8), connection in "[a-z, -]{0,30}",
    ) {
        let fields: Vec<String> =
            values.iter().enumerate().map(|(index, value)| format!("x-amz-{}: {value}", index % 3)).collect();
        let text: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{text}Connection: {connection}\r\n\r\n");
        prop_assert_eq!(&forwarded(&head)[2..], &fields[..]);
    }

    #[test]
    fn a_head_is_found_however_it_arrives(cut in 1usize..60) {
        let text = "GET /x HTTP/1.1\r\nHost: a\r\nAccept: */*\r\n\r\nrest";
        let mut head = RequestHead::default();
        let end = text.len() - 4;
        prop_assert_eq!(head.parse(&text.as_bytes()[..cut.min(end - 1)]), Ok(None));
        prop_assert_eq!(head.parse(text.as_bytes()), Ok(Some(end)));
    }

    #[test]
    fn foreign_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut request = RequestHead::default();
        let _ = request.parse(&bytes);
        let _ = ResponseHead::default().parse(&bytes, &request);
        let _ = Chunks::default().scan(&bytes);
    }
}
