//! What is promised of what is logged and exported, whatever a client sends; a broken promise panics.

#![allow(clippy::unwrap_used, reason = "a broken promise panics")]

use std::time::{Duration, SystemTime};

use crds::config::AccessLogFormat;

use super::{
    line::{self, Facts, Kind},
    redact::{Redact, SECRET},
    span::{self, Context},
};
use crate::http::{message::RequestHead, trace::Trace};

/// Stands behind the name of a secret.
const VALUE: &[u8] = b"5ecret-5ecret-5ecret";

/// The name that a listener's own settings add.
const OWN: &str = "Ticket";

/// A secret in a query comes out nowhere, however its name is written and whatever stands around it; and where there is
/// none, the path is told as it came. The first four bytes choose the secret, how its name is written, what stands before it
/// and where it is put.
pub fn redaction(bytes: &[u8]) {
    let [which, spelling, joint, at, around @ ..] = bytes else { return };
    let redact = Redact::new(&[OWN.to_owned()]);
    let told = |path: &[u8]| {
        let mut told = Vec::new();
        redact.pieces(path, |piece| told.extend_from_slice(piece));
        told
    };
    let as_it_came = told(around);
    assert!(as_it_came == around || has(&as_it_came, b"REDACTED"));
    if has(around, VALUE) {
        return;
    }
    let (before, behind) = around.split_at(usize::from(*at).min(around.len()));
    let joint: &[u8] = match (before.contains(&b'?'), joint % 2) {
        (false, _) => b"?",
        (true, 0) => b"&",
        (true, _) => b";",
    };
    let names = [&SECRET[..], &[OWN]].concat();
    let name = spelled(names[usize::from(*which) % names.len()], *spelling);
    let path = [before, joint, &name, b"=", VALUE, behind].concat();
    assert!(!has(&told(&path), VALUE));
    nowhere(&path, &redact);
}

/// Neither in a line of either format nor in a span.
fn nowhere(path: &[u8], redact: &Redact) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut head = RequestHead::default();
    assert!(head.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok());
    let trace = Trace::of(&head.fields, 1, true, &mut random);
    let facts = Facts {
        kind: Kind::Request,
        time: b"2026-11-22T05:30:00.123Z",
        listener: "web",
        client: None,
        method: Some(b"GET"),
        host: Some(b"a"),
        path: Some(path),
        status: Some(200),
        received: 0,
        sent: 0,
        duration: Duration::ZERO,
        site: None,
        backend: None,
        tries: 1,
        trace: Some(trace.id()),
        user_agent: None,
        cause: None,
    };
    for format in [AccessLogFormat::Json, AccessLogFormat::Text] {
        let mut line = Vec::new();
        line::write(&mut line, format, redact, &facts);
        assert!(!has(&line, VALUE) && line.ends_with(b"\n"));
        assert_eq!(memchr::memchr_iter(b'\n', &line).count(), 1, "a request is one line");
        assert!(
            format == AccessLogFormat::Text || serde_json::from_slice::<serde_json::Value>(&line).is_ok()
        );
    }
    let context = Context { trace: &trace, client: None, secure: false, ended: SystemTime::now(), redact };
    let span = span::span(&facts, &context).unwrap();
    assert!(!has(format!("{span:?}").as_bytes(), VALUE));
}

/// Each bit says how the next letters are written.
fn spelled(name: &str, spelling: u8) -> Vec<u8> {
    let mut spelled = Vec::new();
    for (index, byte) in name.bytes().enumerate() {
        match (spelling >> (2 * (index % 4))) & 3 {
            0 => spelled.push(byte),
            1 => spelled.push(byte.to_ascii_uppercase()),
            2 => spelled.extend_from_slice(format!("%{byte:02x}").as_bytes()),
            _ => spelled.extend_from_slice(format!("%{:02X}", byte.to_ascii_uppercase()).as_bytes()),
        }
    }
    spelled
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
