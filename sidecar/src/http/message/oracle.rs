//! hyper as the oracle: whatever this reader takes for a request, hyper takes for the same one. It may refuse more, never
//! read differently; a difference is where requests are smuggled.

#![allow(clippy::unwrap_used, reason = "a difference panics")]

use std::{cell::RefCell, convert::Infallible, rc::Rc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;

use super::*;

/// Panics when hyper takes fewer requests, or other ones.
pub(in crate::http) fn compare(bytes: &[u8]) {
    let ours = ours(bytes);
    // hyper's type for targets knows fewer characters than servers accept; where a request ends does not depend on them.
    let plain =
        |seen: &Seen| seen.target.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/?%".contains(&byte));
    if !ours.iter().all(plain) {
        return;
    }
    let theirs = theirs(bytes);
    let shown = String::from_utf8_lossy(bytes);
    assert!(ours.len() <= theirs.len(), "{shown:?}\nours {ours:#?}\ntheirs {theirs:#?}");
    for (ours, theirs) in ours.into_iter().zip(theirs) {
        assert_eq!(ours.by_name(), theirs.by_name(), "{shown:?}");
    }
}

/// A request as a reader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    method: String,
    target: String,
    fields: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
}

impl Seen {
    /// hyper keeps the order of fields of one name alone.
    fn by_name(mut self) -> Self {
        self.fields.sort_by(|one, other| one.0.cmp(&other.0));
        self
    }
}

/// The whole requests at the front of some bytes, up to what is incomplete or refused.
fn ours(mut bytes: &[u8]) -> Vec<Seen> {
    let mut seen = Vec::new();
    let mut head = RequestHead::default();
    while let Ok(Some(length)) = head.parse(bytes) {
        bytes = &bytes[length..];
        let Some((body, rest)) = body(head.framing, bytes) else { break };
        bytes = rest;
        let last = !head.keep_alive;
        seen.push(Seen {
            method: String::from_utf8_lossy(head.method()).into_owned(),
            target: String::from_utf8_lossy(head.path()).into_owned(),
            fields: head
                .fields
                .each()
                .map(|(name, value)| (name.to_ascii_lowercase(), value.to_vec()))
                .collect(),
            body,
        });
        if last {
            break;
        }
    }
    seen
}

fn body(framing: Framing, mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    match framing {
        Framing::Length(length) => {
            let length = usize::try_from(length).ok()?;
            Some((bytes.get(..length)?.to_vec(), &bytes[length..]))
        }
        Framing::Chunked => {
            let (mut chunks, mut body) = (Chunks::default(), Vec::new());
            while !bytes.is_empty() {
                match chunks.step(bytes).ok()? {
                    Part::Data(run) => {
                        body.extend_from_slice(&bytes[..run]);
                        bytes = &bytes[run..];
                    }
                    Part::Coding(run) => bytes = &bytes[run..],
                    Part::End(run) => return Some((body, &bytes[run..])),
                }
            }
            None
        }
        Framing::None | Framing::UntilClose => Some((Vec::new(), bytes)),
    }
}

/// What hyper's server makes of the same bytes.
fn theirs(bytes: &[u8]) -> Vec<Seen> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let seen = Rc::new(RefCell::new(Vec::new()));
        let (mut client, server) = tokio::io::duplex(1 << 20);
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        let service = service_fn(|request: Request<Incoming>| {
            let seen = Rc::clone(&seen);
            async move {
                let (parts, body) = request.into_parts();
                let fields = parts
                    .headers
                    .iter()
                    .map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
                let (method, target) = (parts.method.to_string(), parts.uri.to_string());
                let fields = fields.collect();
                if let Ok(body) = body.collect().await {
                    let body = body.to_bytes().to_vec();
                    seen.borrow_mut().push(Seen { method, target, fields, body });
                }
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            }
        });
        // How it ends is of no interest: what was seen before is.
        let mut server_of = http1::Builder::new();
        server_of.half_close(true).max_headers(MAX_FIELDS);
        let _ = server_of.serve_connection(TokioIo::new(server), service).await;
        seen.take()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::compare;

    /// One of each kind, and now and then something that is wrong.
    fn line() -> impl Strategy<Value = String> {
        prop_oneof![
            8 => Just("Host: a\r\n".to_owned()),
            2 => "[a-z-]{1,8}:[ \t]{0,2}[ -~]{0,12}[ \t]{0,1}\r\n",
            3 => (0usize..12).prop_map(|length| format!("Content-Length: {length}\r\n")),
            3 => Just("Transfer-Encoding: chunked\r\n".to_owned()),
            1 => prop::sample::select(vec![
                "Transfer-Encoding: identity\r\n", "Transfer-Encoding: gzip, chunked\r\n", "Transfer-Encoding : chunked\r\n",
                "Transfer-Encoding:\tchunked \r\n", "transfer-encoding: Chunked\r\n", "Content-Length: +1\r\n",
                "Content-Length: 1, 1\r\n", "Content-Length: 01\r\n", "Content-Length:\r\n", " folded\r\n", "Host: a\n", "X: a\rb\r\n",
                "\r\n", "X: \0\r\n",
            ]).prop_map(str::to_owned),
        ]
    }

    fn payload() -> impl Strategy<Value = String> {
        prop_oneof![
            4 => "[a-z]{0,12}",
            4 => Just("3\r\nabc\r\n0\r\n\r\n".to_owned()),
            2 => prop::sample::select(vec![
                "0\r\n\r\n", "3;x=y\r\nabc\r\n0\r\n\r\n", "03\r\nabc\r\n00\r\nx: y\r\n\r\n", "3\nabc\n0\n\n", "3\r\nabcd\r\n0\r\n\r\n",
                "3 \r\nabc\r\n0\r\n\r\n", "0x3\r\nabc\r\n0\r\n\r\n", "3\r\nabc0\r\n\r\n", "-3\r\nabc\r\n", "3;\nabc\r\n0\r\n\r\n", "0\r\n\n",
                "3\r\nabc\r\n0\r\nContent-Length: 2\r\n\r\n", "F\r\nfifteen letters\r\n0\r\n\r\n",
            ]).prop_map(str::to_owned),
        ]
    }

    fn request() -> impl Strategy<Value = String> {
        let start = prop_oneof![
            6 => Just("POST /a//b?%2f HTTP/1.1\r\n".to_owned()),
            2 => Just("GET / HTTP/1.1\r\n".to_owned()),
            1 => prop::sample::select(vec![
                "GET  / HTTP/1.1\r\n", "\r\nGET / HTTP/1.1\r\n", "GET / HTTP/1.1\n", "GET / HTTP/1.2\r\n", "get / HTTP/1.1\r\n", "GET /\r\n",
            ]).prop_map(str::to_owned),
        ];
        (start, prop::collection::vec(line(), 0..4), payload()).prop_map(|(start, lines, payload)| {
            format!("{start}Host: a\r\n{}\r\n{payload}", lines.concat().replacen("Host: a\r\n", "", 9))
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

        #[test]
        fn hyper_sees_the_same_requests(
            requests in prop::collection::vec(request(), 1..4), change in prop::option::weighted(0.3, (any::<prop::sample::Index>(), any::<u8>())),
        ) {
            let mut bytes = requests.concat().into_bytes();
            if let Some((at, byte)) = change {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            compare(&bytes);
        }
    }
}
