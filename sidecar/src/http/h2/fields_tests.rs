//! Heads in both directions, as tables and with whatever the other protocol allows.

use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::http::message::{BadRequest, Edits, RequestHead};

fn parts(method: &str, uri: &str, fields: &[(&str, &str)]) -> request::Parts {
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn a_request_is_written_so_that_the_loop_reads_it() {
    let fields = [("cookie", "a=1"), ("x-a", "1"), ("cookie", "b=2"), ("te", "trailers"), ("host", "APP:80")];
    let mut out = Vec::new();
    let coding = write_request(&mut out, &parts("POST", "http://app:80//a?b", &fields), false);
    assert_eq!(coding, Ok(Coding::Chunks));
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "POST //a?b HTTP/1.1\r\nHost: app:80\r\ncookie: a=1; b=2\r\nx-a: 1\r\nte: trailers\r\n\
         Transfer-Encoding: chunked\r\n\r\n"
    );
}

#[test]
fn what_contradicts_itself_is_not_written() {
    for (uri, fields, ended, malformed) in [
        ("http://app/", &[("host", "evil")][..], true, Malformed::Host),
        ("http://app/", &[("host", "app"), ("host", "app")], true, Malformed::Host),
        ("/", &[("host", "app"), ("host", "app")], true, Malformed::Host),
        ("http://app/", &[("content-length", "1")], true, Malformed::Length),
    ] {
        assert_eq!(write_request(&mut Vec::new(), &parts("GET", uri, fields), ended), Err(malformed));
    }
}

#[test]
fn the_end_of_an_answer_is_told_by_its_length_or_by_chunks() {
    for (status, length, bodiless, ended, expected) in [
        (200, Some(3), false, false, (Coding::Plain, "content-length: 3\r\n")),
        (200, None, false, false, (Coding::Chunks, "transfer-encoding: chunked\r\n")),
        (200, None, false, true, (Coding::Plain, "content-length: 0\r\n")),
        (200, None, true, true, (Coding::Plain, "")),
        (204, None, false, true, (Coding::Plain, "")),
        (304, Some(3), false, true, (Coding::Plain, "content-length: 3\r\n")),
        (103, None, false, false, (Coding::Plain, "")),
    ] {
        let mut response = Response::builder().status(status).body(()).unwrap();
        if let Some(length) = length {
            response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let mut out = Vec::new();
        let coding = write_response(&mut out, &response, bodiless, ended);
        let text = String::from_utf8(out).unwrap();
        let told = text.split_once("\r\n").unwrap().1.strip_suffix("\r\n").unwrap();
        assert_eq!((coding, told), expected, "{status}");
    }
}

fn field() -> impl Strategy<Value = (String, Vec<u8>)> {
    let known = select(vec!["content-length", "cookie", "host", "te", "expect", "upgrade", "connection"]);
    let name = prop_oneof![known.prop_map(str::to_owned), "[a-z0-9!#$%&'*+.^_`|~-]{1,9}"];
    let value = prop_oneof![
        "[0-9]{1,3}|app|trailers|100-continue|h2c".prop_map(String::into_bytes),
        vec(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xffu8], 0..9),
    ];
    (name, value)
}

proptest! {
    /// Whatever is in a request of HTTP/2: to the strict reader it is one request, to its last byte, or none.
    #[test]
    fn one_request_stays_one(
        method in "[A-Z]{1,7}",
        path in prop_oneof!["/[!-~]{0,12}", "[!-~]{1,12}"],
        fields in vec(field(), 0..6),
        ended: bool,
    ) {
        let Ok(target) = PathAndQuery::try_from(path.as_str()) else { return Ok(()) };
        let mut parts = parts(&method, "http://app/", &[]);
        let mut uri = parts.uri.into_parts();
        uri.path_and_query = Some(target.clone());
        let Ok(uri) = Uri::from_parts(uri) else { return Ok(()) };
        parts.uri = uri;
        for (name, value) in &fields {
            prop_assert!(append(&mut parts.headers, name, Bytes::copy_from_slice(value)).is_some());
        }
        let mut out = Vec::new();
        if write_request(&mut out, &parts, ended).is_err() {
            return Ok(());
        }
        let mut head = RequestHead::default();
        match head.parse(&out) {
            Err(BadRequest::BareLineFeed | BadRequest::TooLarge) => prop_assert!(false, "it is written wrongly"),
            Err(_) => {}
            read => {
                prop_assert_eq!(read, Ok(Some(out.len())));
                prop_assert_eq!(head.method(), method.as_bytes());
                prop_assert_eq!(head.path(), target.as_str().as_bytes());
                prop_assert_eq!(head.host(), b"app");
            }
        }
    }

    /// Whatever the loop writes for a backend is the same request in HTTP/2, or is not sent.
    #[test]
    fn a_request_of_the_loop_stays_the_same(
        path in "/[!-~]{0,12}",
        host in "[a-z0-9.:-]{1,9}",
        fields in vec(("[a-z0-9-]{1,9}", "[ -~]{0,9}"), 0..6),
    ) {
        let mut text = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n");
        for (name, value) in &fields {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut head = RequestHead::default();
        let Ok(Some(_)) = head.parse(text.as_bytes()) else { return Ok(()) };
        let mut out = Vec::new();
        head.write(&mut out, Edits::default());
        let Ok(read) = read_request(&out, &Scheme::HTTP) else { return Ok(()) };
        prop_assert_eq!(read.length, out.len());
        prop_assert_eq!(read.head.uri().path_and_query().unwrap().as_str(), path);
        prop_assert_eq!(read.head.uri().authority().unwrap().as_str(), host);
        let sent: Vec<_> = read.head.headers().iter().filter(|(name, _)| *name != header::TE).collect();
        let kept = fields.iter().filter(|(name, _)| !["te", "upgrade", "connection", "keep-alive"].contains(&name.as_str()));
        prop_assert_eq!(sent.len(), kept.count());
    }
}
