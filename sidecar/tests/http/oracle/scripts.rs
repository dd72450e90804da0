//! Scripts as an attacker would try them: requests that are nearly right, one behind the other.

use proptest::{collection::vec, prelude::*, sample::select};

const METHODS: [&str; 8] = ["GET", "GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE", "get"];
const TARGETS: [&str; 11] = [
    "/",
    "/",
    "/a?b=c",
    "//x/%2F?y&&",
    "*",
    "http://b/x",
    "http://u@b?q",
    "/a|b",
    "/a<b",
    "/x#y",
    "ftp://b/",
];
const VERSIONS: [&str; 6] = ["1.1", "1.1", "1.1", "1.1", "1.0", "1.2"];
const FIELDS: [&str; 24] = [
    "X-A: 1",
    "X-A:2 ",
    "X-B:\t\"q\"",
    "Connection: close",
    "Connection: keep-alive, X-A",
    "Connection: Host, Authorization",
    "Authorization: AWS4",
    "Keep-Alive: 5",
    "Proxy-Connection: x",
    "TE: trailers",
    "TE: gzip;q=1, trailers",
    "Trailer: x-sum",
    "Host: b",
    "Host:",
    "Content-Length: 0",
    "Content-Length: 2",
    "Content-Length: 2, 2",
    "Content-Length: +2",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: gzip, chunked",
    "Transfer-Encoding: identity",
    "Connection: Upgrade\r\nUpgrade: echo",
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA",
    "X: folded\r\n value",
];
const ENDS: [&str; 12] =
    ["\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r"];

/// Bytes that mean something to a reader of messages.
const BYTES: &[u8] = b"\r\n\t :,;0ag/\0|#\x7f\xff";

#[derive(Debug, Clone)]
enum Edit {
    Replace(u8),
    Insert(u8),
    Remove,
}

pub(super) fn scripts() -> impl Strategy<Value = Vec<u8>> {
    let edit = prop_oneof![
        select(BYTES).prop_map(Edit::Replace),
        select(BYTES).prop_map(Edit::Insert),
        Just(Edit::Remove),
    ];
    let edits = prop_oneof![3 => Just(Vec::new()), 2 => vec((any::<prop::sample::Index>(), edit), 1..3)];
    (vec(request(), 1..4), edits).prop_map(|(requests, edits)| {
        let mut script = requests.concat().into_bytes();
        for (index, edit) in edits {
            let at = index.index(script.len());
            match edit {
                Edit::Replace(byte) => script[at] = byte,
                Edit::Insert(byte) => script.insert(at, byte),
                Edit::Remove if script.len() > 1 => drop(script.remove(at)),
                Edit::Remove => {}
            }
        }
        script
    })
}

fn request() -> impl Strategy<Value = String> {
    let fields = prop_oneof![Just(Vec::new()), vec(select(&FIELDS[..]), 1..4)];
    let start = (select(&METHODS[..]), select(&TARGETS[..]), select(&VERSIONS[..]));
    (start, fields, select(&ENDS[..]), body()).prop_map(
        |((method, target, version), fields, end, (framing, body))| {
            let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
            format!("{method} {target} HTTP/{version}\r\nHost: a{end}{fields}{framing}\r\n{body}")
        },
    )
}

/// The lines that frame a body, and the body.
fn body() -> impl Strategy<Value = (String, String)> {
    let text = select(&["", "x", "hello", "0\r\n\r\n", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"][..]);
    let sized = (text.clone(), select(&[0_i64, 0, 0, 0, 1, -1][..])).prop_map(|(text, off)| {
        (format!("Content-Length: {}\r\n", (text.len() as i64 + off).max(0)), text.to_owned())
    });
    let extension = select(&["", "", "", ";a=\"b\"", ";", " ", ";a\tb"][..]);
    let trailers =
        select(&["", "", "x-sum: 7\r\n", "X-Sum : 7\r\n", "Content-Length: 3\r\n", "nothing\r\n"][..]);
    let chunked = (vec((text, extension), 0..3), trailers).prop_map(|(chunks, trailers)| {
        let chunks: String = chunks
            .iter()
            .filter(|(text, _)| !text.is_empty())
            .map(|(text, extension)| format!("{:x}{extension}\r\n{text}\r\n", text.len()))
            .collect();
        ("Transfer-Encoding: chunked\r\n".to_owned(), format!("{chunks}0\r\n{trailers}\r\n"))
    });
    prop_oneof![Just((String::new(), String::new())), sized, chunked]
}
