//! The other way: what a client gets of the same answer.

use tokio::io::AsyncReadExt;

use super::{name, normalise};
use crate::support::{Backend, Client, Ended, Reference, Sidecar, in_time};

/// What a client makes of an answer.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    Whole {
        statuses: Vec<u16>,
        fields: Vec<String>,
        body: Vec<u8>,
    },
    /// It has begun, and did not come to its end.
    Broken,
    /// The proxy has answered itself.
    Refused,
}

/// Fields of one connection, and of the framing that fits the client.
const OF_CONNECTION: [&str; 4] = ["connection", "keep-alive", "transfer-encoding", "trailer"];

const TWO_LENGTHS: &str = "an answer with two lengths has none";

/// Method, answer, and why what comes of it differs, where it does.
const ANSWERS: &[(&str, &str, Option<&str>)] = &[
    (
        "GET",
        "HTTP/1.1 200 OK\r\nX-A: 1\r\nSet-Cookie: b\r\nset-cookie: a\r\nContent-Length: 2\r\n\r\nok",
        None,
    ),
    ("GET", "HTTP/1.1 206 Teil\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x0b", None),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", None),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", None),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n", None),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokk\r\n0\r\n\r\n", None),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\nok", None),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 9\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        Some("hyper's client goes by the chunks, and its server then promises the length"),
    ),
    ("GET", "HTTP/1.1 200 OK\r\n\r\nok", None),
    ("GET", "HTTP/1.0 200 OK\r\n\r\nok", None),
    ("GET", "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", None),
    ("GET", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", None),
    ("GET", "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n", None),
    (
        "GET",
        "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 9\r\n\r\n",
        Some("the length that an answer would have had is for the client to know"),
    ),
    ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", None),
    ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nConnection: X-A\r\nX-A: 1\r\nKeep-Alive: 5\r\nContent-Length: 2\r\n\r\nok",
        None,
    ),
    ("GET", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", None),
    (
        "GET",
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        Some("hyper keeps what comes ahead of an answer to itself"),
    ),
    ("GET", "", None),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Le", None),
    ("GET", "SSH-2.0-OpenSSH_9.9\r\n", None),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 60\r\n\r\nok", None),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok", None),
    ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok", Some(TWO_LENGTHS)),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: cow\r\nContent-Length: 2\r\n\r\nok",
        Some("hyper reads what is coded in an unknown way to the end of the connection"),
    ),
    ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\nok", None),
    (
        "GET",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\nX: y\r\n\r\nok",
        Some("a line feed alone ends a line for some readers and not for others"),
    ),
    ("GET", "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 60\r\nContent-Length: 2\r\n\r\nok", None),
    ("GET", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nok", None),
    ("GET", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok", None),
    ("GET", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", None),
];

async fn ask(address: std::net::SocketAddr, method: &str) -> Got {
    let mut client = Client::connect(address).await;
    client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")).await;
    let mut statuses = Vec::new();
    let head = loop {
        let Ok(head) = client.try_receive_head().await else { return Got::Broken };
        statuses.push(head.status());
        if head.status() >= 200 {
            break head;
        }
    };
    if head.status() == 502 {
        return Got::Refused;
    }
    let bodiless = method == "HEAD" || matches!(head.status(), 204 | 304);
    let framed = ["content-length", "transfer-encoding"].iter().any(|name| head.header(name).is_some());
    let mut fields = head.headers.clone();
    fields.iter_mut().for_each(normalise);
    fields.retain(|line| !OF_CONNECTION.contains(&name(line)));
    fields.sort_by(|one, other| name(one).cmp(name(other)));
    let body = if bodiless {
        Vec::new()
    } else if framed {
        match client.receive_body(head).await {
            Ok(body) => body,
            Err(Ended::Closed | Ended::CutShort) => return Got::Broken,
        }
    } else {
        let mut body = Vec::new();
        match in_time("the end", client.reader.read_to_end(&mut body)).await {
            Ok(_) => body,
            Err(_) => return Got::Broken,
        }
    };
    Got::Whole { statuses, fields, body }
}

#[tokio::test]
async fn a_client_gets_of_an_answer_what_hyper_makes_of_it_but_for_what_is_meant() {
    let mut wrong = Vec::new();
    for &(method, answer, why) in ANSWERS {
        let backend = Backend::start(move |mut visit| async move {
            if visit.head().await.is_some() {
                visit.send(answer).await;
            }
        })
        .await;
        let sidecar = Sidecar::start(&[backend.address]).await;
        let reference = Reference::before(backend.address).await;
        let (ours, theirs) = tokio::join!(ask(sidecar.address(), method), ask(reference.address, method));
        if (ours == theirs) != why.is_none() {
            wrong.push(format!("{method} {answer:?}: {ours:?}, and theirs {theirs:?}; {why:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
