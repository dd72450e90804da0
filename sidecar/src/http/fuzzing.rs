//! What is promised of messages whatever their bytes are; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use std::net::{IpAddr, Ipv4Addr};

pub use super::{
    access::fuzzing::redaction,
    auth::fuzzing::{api_keys, key_set, token},
    h2::fuzzing::{h2_answer, h2_request},
};
use super::{
    forwarded,
    message::{
        BadRequest, Chunks, Edits, Framing, MAX_HEAD, Part, RequestHead, ResponseHead, Version, oracle,
    },
    trace::Trace,
    verdict::{LOOKED_AT, Verdict},
};

/// What is forwarded is the request that was read, and reads as one request again.
pub fn request_head(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(Some(length)) = head.parse(bytes) else { return };
    assert!(length <= bytes.len() && length <= MAX_HEAD);
    for part in [&bytes[..length - 1], &bytes[..length / 2]] {
        assert_eq!(RequestHead::default().parse(part), Ok(None), "it ends where it ends");
    }
    let mut written = Vec::new();
    head.write(&mut written, Edits::default());
    let mut again = RequestHead::default();
    match again.parse(&written) {
        // What every proxy adds may be too much for a next one.
        Err(BadRequest::TooLarge) => return,
        read => assert_eq!(read, Ok(Some(written.len()))),
    }
    assert_eq!(again.method(), head.method());
    assert_eq!(again.path().trim_ascii_start(), slashed(head.path()));
    assert_eq!(again.host(), head.host());
    assert_eq!((again.framing, again.upgrade), (head.framing, head.upgrade));
    let mut twice = Vec::new();
    again.write(&mut twice, Edits::default());
    assert_eq!(twice, written, "there is nothing left to change");
}

fn slashed(path: &[u8]) -> Vec<u8> {
    if path.starts_with(b"/") || path == b"*" { path.to_vec() } else { [b"/", path].concat() }
}

/// What is passed on is the answer that was read, ends where that ends, and reads as one answer again.
pub fn response_head(bytes: &[u8]) {
    let [choice, bytes @ ..] = bytes else { return };
    let request = match choice % 4 {
        0 => &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        1 => b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        2 => b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        _ => b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    };
    let mut asked = RequestHead::default();
    assert_eq!(asked.parse(request), Ok(Some(request.len())));
    let mut head = ResponseHead::default();
    let Ok(Some(length)) = head.parse(bytes, &asked) else { return };
    assert!(length <= bytes.len() && length <= MAX_HEAD && (100..=999).contains(&head.status));
    let framing = match (head.framing, asked.version) {
        (Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (Framing::Chunked, Version::Http10) => Framing::UntilClose,
        (framing, _) => framing,
    };
    let mut written = Vec::new();
    head.write(&mut written, &asked, framing, framing == Framing::UntilClose);
    let mut again = ResponseHead::default();
    let read = again.parse(&written, &asked);
    assert!(matches!(read, Ok(Some(end)) if end == written.len()) || written.len() > length, "{read:?}");
    if matches!(read, Ok(Some(_))) {
        assert_eq!((again.status, again.framing), (head.status, framing));
    }
}

/// However a body is cut, it has the same data and the same end.
pub fn chunks(bytes: &[u8]) {
    let whole = Chunks::default().scan(bytes);
    let (mut reader, mut data, mut end) = (Chunks::default(), Vec::new(), None);
    for (index, byte) in bytes.iter().enumerate() {
        match reader.step(&[*byte]) {
            Ok(Part::Data(1)) => data.push(*byte),
            Ok(Part::Coding(1)) => {}
            Ok(Part::End(1)) => {
                end = Some(index + 1);
                break;
            }
            other => {
                assert!(other.is_err() && whole.is_err(), "{other:?} at {index}, and as a whole {whole:?}");
                return;
            }
        }
    }
    assert_eq!(whole, Ok((end.unwrap_or(bytes.len()), end.is_some())));
    let (mut reader, mut rest, mut runs) = (Chunks::default(), bytes, Vec::new());
    while !rest.is_empty() {
        let (run, ended) = match reader.step(rest).unwrap() {
            Part::Data(run) => {
                runs.extend_from_slice(&rest[..run]);
                (run, false)
            }
            Part::Coding(run) => (run, false),
            Part::End(run) => (run, true),
        };
        assert!(run > 0, "it goes on");
        rest = if ended { &[] } else { &rest[run..] };
    }
    assert_eq!(runs, data);
}

/// hyper reads the same requests. Whole URLs are left out: of these, hyper shows more than the path.
pub fn requests(bytes: &[u8]) {
    if bytes.len() < MAX_HEAD && memchr::memmem::find(bytes, b"://").is_none() {
        oracle::compare(bytes);
    }
}

/// The lines that tell of the client are lines, whatever others said before.
pub fn forwarded_lines(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(Some(_)) = head.parse(bytes) else { return };
    let mut lines = Vec::new();
    forwarded::write(&mut lines, &head.fields, head.host(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let request = [b"GET / HTTP/1.1\r\nHost: a\r\n", &lines[..], b"\r\n"].concat();
    let mut told = RequestHead::default();
    match told.parse(&request) {
        Err(BadRequest::TooLarge) => return,
        read => assert_eq!(read, Ok(Some(request.len()))),
    }
    assert!(lines.iter().filter(|byte| **byte == b'\n').count() <= forwarded::REPLACED.len() + 2);
    let last = told.fields.get("x-forwarded-for").and_then(|value| value.rsplit(|byte| *byte == b' ').next());
    assert_eq!(last, Some(&b"127.0.0.1"[..]), "nobody speaks for this proxy");
}

/// A backend is told of one trace, and of the one that the sidecar logs.
pub fn trace(bytes: &[u8]) {
    let mut head = RequestHead::default();
    let Ok(Some(_)) = head.parse(bytes) else { return };
    for exports in [false, true] {
        let mut random = fastrand::Rng::with_seed(7);
        let trace = Trace::of(&head.fields, 2, exports, &mut random);
        let (mut without, mut lines, mut written) = (Vec::new(), Vec::new(), Vec::new());
        trace.tell(&mut without, &mut lines);
        head.write(&mut written, Edits { without: &without, removed: &[], extra: &lines });
        let mut told = RequestHead::default();
        match told.parse(&written) {
            Err(BadRequest::TooLarge) => return,
            read => assert_eq!(read, Ok(Some(written.len()))),
        }
        assert_eq!(told.fields.all("traceparent").count(), 1);
        assert_eq!(Trace::of(&told.fields, 2, false, &mut random).id(), trace.id());
    }
}

/// A 503 is the client's to hear when S3 says so within what is looked at, and only then.
pub fn verdict(bytes: &[u8]) {
    let mut request = RequestHead::default();
    assert!(request.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    let mut response = ResponseHead::default();
    let Ok(Some(length)) = response.parse(bytes, &request) else { return };
    let body = &bytes[length..];
    let code = b"<Code>SlowDown";
    let says = body.windows(code.len()).take(LOOKED_AT + 1 - code.len()).any(|window| window == code)
        || response.fields.get("x-minio-error-code").is_some_and(|value| value.starts_with(b"SlowDown"));
    let verdict = Verdict::of(&response, body);
    assert_eq!(verdict == Verdict::SlowDown, response.status == 503 && says, "{verdict:?}");
}
