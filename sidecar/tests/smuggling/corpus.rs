//! Messages that two readers could read in two ways, and those that only look like it. Each has another request hidden in it.

/// What is meant to reach a backend past whoever looks at requests.
pub(crate) const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";

/// How a body in chunks begins.
pub(crate) const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A request with these lines, a body that is empty in chunks, and behind it what a reader of the length takes for its body.
fn hidden(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n0\r\n\r\n{SMUGGLED}")
}

/// Framed by chunks in an odd spelling, beside a length that says otherwise.
pub(crate) fn coded(coding: &str) -> String {
    hidden(&format!("Content-Length: {}\r\n{coding}\r\n", 5 + SMUGGLED.len()))
}

pub(crate) fn sized(length: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length:{length}\r\n\r\nhello{SMUGGLED}")
}

pub(crate) fn headed(head: &str) -> String {
    format!("{head}\r\n\r\n{SMUGGLED}")
}

/// Requests that are to be refused, and the status of the answer.
pub(crate) fn ambiguous() -> Vec<(String, u16)> {
    vec![
        // Both a length and chunks, in either order.
        (coded("Transfer-Encoding: chunked"), 400),
        (hidden("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"), 400),
        // Chunks in a spelling that one reader knows and another does not.
        (coded("Transfer-Encoding:\tchunked"), 400),
        (coded("transfer-encoding: CHUNKED"), 400),
        (coded("Transfer-Encoding : chunked"), 400),
        (coded("Transfer-Encoding\t: chunked"), 400),
        (coded("Transfer-Encoding\n: chunked"), 400),
        (coded(" Transfer-Encoding: chunked"), 400),
        (coded("X: x\nTransfer-Encoding: chunked"), 400),
        (coded("X: x\rTransfer-Encoding: chunked"), 400),
        (coded("X: x\r\n\tTransfer-Encoding: chunked"), 400),
        (coded("Transfer-Encoding:\r\n chunked"), 400),
        (coded("Transfer-Encoding: \0chunked"), 400),
        (coded("Transfer-Encoding: chunked\0"), 400),
        (coded("Transfer-Encoding: \x0bchunked"), 400),
        (coded("Transfer-Encoding: chunked\x7f"), 400),
        (coded("\0Transfer-Encoding: chunked"), 400),
        (coded("Transfer-Encoding: xchunked"), 501),
        (coded("Transfer-Encoding: chunkedx"), 501),
        (coded("Transfer-Encoding: \"chunked\""), 501),
        (coded("Transfer-Encoding: 'chunked'"), 501),
        (coded("Transfer-Encoding: chunked;q=1"), 501),
        (coded("Transfer-Encoding: chunked, identity"), 501),
        (coded("Transfer-Encoding: identity, chunked"), 501),
        (coded("Transfer-Encoding: ,chunked"), 501),
        (coded("Transfer-Encoding: chunked,"), 501),
        (coded("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow"), 501),
        (coded("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked"), 501),
        (coded("Transfer-Encoding:"), 501),
        (coded("Transfer-Encoding: ch\u{fc}nked"), 501),
        (hidden("Transfer-Encoding: identity\r\n"), 501),
        (hidden("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"), 501),
        // Lengths of which readers make different numbers.
        (sized(" 5\r\nContent-Length: 46"), 400),
        (sized(" 5\r\ncontent-length: 5"), 400),
        (sized(" 5, 5"), 400),
        (sized(" 5,46"), 400),
        (sized(" +5"), 400),
        (sized(" -5"), 400),
        (sized(" 5 6"), 400),
        (sized(" 5;"), 400),
        (sized(" 5.0"), 400),
        (sized(" 5e0"), 400),
        (sized(" 0x5"), 400),
        (sized(" \u{665}"), 400),
        (sized(" 5\x0b"), 400),
        (sized(" 5\0"), 400),
        (sized(""), 400),
        (sized(" \r\n 5"), 400),
        (sized(" 18446744073709551621"), 400),
        (sized(" 0000000000000000000005"), 400),
        (sized(" 5").replace("Content-Length:", "Content-Length :"), 400),
        (sized(" 5").replace("Content-Length:", "Content-Length\0:"), 400),
        // Lines that end elsewhere for another reader, or are none.
        (headed("GET / HTTP/1.1\nHost: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\nX: b"), 400),
        ("GET / HTTP/1.1\nHost: a\n\n".to_owned() + SMUGGLED, 400),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n".to_owned() + SMUGGLED, 400),
        ("GET / HTTP/1.1\r\nHost: a\r\r\n\r\n".to_owned() + SMUGGLED, 400),
        (headed("GET / HTTP/1.1\rHost: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c"), 400),
        (headed("GET / HTTP/1.1\r\n Host: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX: b\0"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX\0: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX : b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX Y: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\n: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nX"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\n(X): b"), 400),
        // First lines that are none of this version.
        (headed("GET  / HTTP/1.1\r\nHost: a"), 400),
        (headed("GET\t/\tHTTP/1.1\r\nHost: a"), 400),
        (headed("GET / HTTP/1.1 \r\nHost: a"), 400),
        (headed("GET / /smuggled HTTP/1.1\r\nHost: a"), 400),
        (headed("GET /\0 HTTP/1.1\r\nHost: a"), 400),
        (headed("GET / HTTP/1.10\r\nHost: a"), 400),
        (headed("GET / HTTP/01.1\r\nHost: a"), 400),
        (headed("GET / http/1.1\r\nHost: a"), 400),
        (headed("GET / HTTP/1,1\r\nHost: a"), 400),
        (headed("GET / HTTP/2.0\r\nHost: a"), 400),
        (headed("GET /\r\nHost: a"), 400),
        (headed("G\u{c9}T / HTTP/1.1\r\nHost: a"), 400),
        ("PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n".to_owned() + SMUGGLED, 400),
        (headed("CONNECT a:80 HTTP/1.1\r\nHost: a:80"), 400),
        // Hosts that are two.
        (headed("GET / HTTP/1.1\r\nHost: a\r\nHost: b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a\r\nhOST: a"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a, b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: u@b"), 400),
        (headed("GET / HTTP/1.1\r\nHost: a/b"), 400),
        (headed("GET / HTTP/1.1"), 400),
        (headed("GET http://b/ HTTP/1.1"), 400),
        (headed("GET http://b/ HTTP/1.1\r\nHost: a\r\nHost: b"), 400),
        (headed("GET http://b\\c/ HTTP/1.1\r\nHost: a"), 400),
        (headed("GET b:80 HTTP/1.1\r\nHost: a"), 400),
        (headed("GET ftp://b/ HTTP/1.1\r\nHost: a"), 400),
    ]
}

/// Requests whose heads are too much.
pub(crate) fn boundless() -> Vec<String> {
    let long = "x".repeat(70 * 1024);
    vec![
        format!("{long} / HTTP/1.1\r\n"),
        format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{long}: x\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {}\r\n\r\n", "a=b; ".repeat(20_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: x\r\n".repeat(2_000)),
        format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "Connection: x\r\n".repeat(128)),
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(40_000)),
        // Within all bounds of size; but each name would be compared with each field.
        format!("GET / HTTP/1.1\r\nHost: a\r\nConnection: {}\r\n\r\n", "x,".repeat(129)),
        "\r\n".repeat(40_000),
    ]
}

/// Bodies in chunks that another reader would end elsewhere, and what of them may reach a backend.
pub(crate) fn torn() -> Vec<(&'static str, &'static str)> {
    vec![
        // Sizes that overflow, are signed, or are none.
        ("FFFFFFFFFFFFFFFF5\r\nhello\r\n0\r\n\r\n", ""),
        ("10000000000000005\r\nhello\r\n0\r\n\r\n", ""),
        ("00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n", ""),
        ("0x5\r\nhello\r\n0\r\n\r\n", ""),
        ("+5\r\nhello\r\n0\r\n\r\n", ""),
        ("-5\r\nhello\r\n0\r\n\r\n", ""),
        (" 5\r\nhello\r\n0\r\n\r\n", ""),
        ("5 \r\nhello\r\n0\r\n\r\n", ""),
        ("5\t;x\r\nhello\r\n0\r\n\r\n", ""),
        ("\r\n5\r\nhello\r\n0\r\n\r\n", ""),
        ("5_0\r\nhello\r\n0\r\n\r\n", ""),
        // Lines that end with half of an end, in extensions too.
        ("5\nhello\n0\n\n", ""),
        ("5\rXhello\r\n0\r\n\r\n", ""),
        ("5;x\nhello\r\n0\r\n\r\n", ""),
        ("2;\nxx\r\n31\r\n0\r\n\r\n", ""),
        ("5;x\rhello\r\n0\r\n\r\n", ""),
        ("5;x\0\r\nhello\r\n0\r\n\r\n", ""),
        // Data that is longer or shorter than its size, or ends with half of an end.
        ("5\r\nhelloXX\r\n0\r\n\r\n", "5\r\nhello"),
        ("5\r\nhello\n0\r\n\r\n", "5\r\nhello"),
        ("5\r\nhello0\r\n\r\n", "5\r\nhello"),
        ("5\r\nhell\r\n0\r\n\r\n", "5\r\nhell\r"),
        // Trailers that are none, or would be headers for another reader.
        ("5\r\nhello\r\n0\r\nGET /smuggled HTTP/1.1\r\n\r\n", "5\r\nhello\r\n0\r\nGET"),
        ("5\r\nhello\r\n0\r\nX: y\n\r\n", "5\r\nhello\r\n0\r\nX: y"),
        ("5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n", "5\r\nhello\r\n0\r\nContent-Length"),
        ("5\r\nhello\r\n0\r\nTransfer-Encoding: x\r\n\r\n", "5\r\nhello\r\n0\r\nTransfer-Encoding"),
        ("5\r\nhello\r\n0\r\nHost: b\r\n\r\n", "5\r\nhello\r\n0\r\nHost"),
        ("5\r\nhello\r\n0\r\n\n", "5\r\nhello\r\n0\r\n"),
        ("5\r\nhello\r\n0\r\n\rX", "5\r\nhello\r\n0\r\n\r"),
    ]
}

/// Bodies in chunks with extensions and trailers that are too much.
pub(crate) fn endless() -> Vec<String> {
    vec![
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "x".repeat(70 * 1024)),
        format!("5\r\nhello\r\n0\r\nX: {}\r\n\r\n", "x".repeat(70 * 1024)),
        format!("5\r\nhello\r\n0\r\n{}\r\n", "X: x\r\n".repeat(20_000)),
    ]
}

/// Requests that are one by every reading, and how they reach a backend.
pub(crate) fn harmless() -> Vec<(String, String)> {
    let body = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
    let chunk = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
        SMUGGLED.len()
    );
    let same = |request: &str| (request.to_owned(), request.to_owned());
    vec![
        // A request in the body of another one is its body.
        same(&body),
        same(&body.replacen("POST", "GET", 1)),
        same(&chunk),
        // Values as they were written, where they can mean one thing alone.
        same(&chunk.replace(": chunked", ": \tCHUNKED\t ")),
        same(&body.replace("Length: ", "Length:\t0")),
        same(&chunk.replacen("\r\n\r\n25", "\r\n\r\n0025;a=\"b c\";d", 1)),
        // Fields that frame nothing, however much they look like it.
        same(&body.replacen("Host", "Transfer_Encoding: chunked\r\nHost", 1)),
        same(&body.replacen("Host", "Content_Length: 3\r\nHost", 1)),
        same(&body.replacen("Host", "X-Transfer-Encoding: chunked\r\nHost", 1)),
        // What belongs to one connection goes, and what frames the message stays.
        (body.replacen("Host", "Connection: content-length, host, close\r\nHost", 1), body.clone()),
        (chunk.replacen("Host", "Connection: Transfer-Encoding\r\nHost", 1), chunk.clone()),
        (body.replacen("Host", "Keep-Alive: 5\r\nProxy-Connection: x\r\nHost", 1), body.clone()),
        // The Host of a whole URL is the URL's.
        (body.replacen("POST /", "POST http://b/", 1), body.replacen("Host: a", "Host: b", 1)),
        (body.replacen("POST /", "POST http://u:p@b:80/", 1), body.replacen("Host: a", "Host: b:80", 1)),
        // Empty lines before a request are none of it.
        (format!("\r\n\r\n{body}"), body.clone()),
        // An offer of HTTP/2 is not passed on, nor is one of an older client to change the protocol.
        (
            body.replacen(
                "Host",
                "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nHost",
                1,
            ),
            body.clone(),
        ),
        (body.replacen("1.1\r\nHost", "1.0\r\nConnection: upgrade\r\nUpgrade: x\r\nHost", 1), body.clone()),
    ]
}
