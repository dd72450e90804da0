//! Where a sidecar and a proxy made of hyper differ on purpose. Each difference is told by what a script must have in it, so that
//! it excuses no other script; and has an example, so that none outlives its reason.

/// What reached a backend of the one and not of the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    WeRefuse,
    TheyRefuse,
    PassedOnOtherwise,
    /// A request that was passed on was not answered, which nothing excuses.
    Unanswered,
}

pub(super) struct Meant {
    kind: Difference,
    pub(super) why: &'static str,
    has: fn(&[u8]) -> bool,
    pub(super) example: &'static str,
}

impl Meant {
    pub(super) fn explains(&self, kind: Difference, script: &[u8]) -> bool {
        self.kind == kind && (self.has)(script)
    }
}

pub(super) const MEANT: &[Meant] = &[
    Meant {
        kind: Difference::WeRefuse,
        why: "a line feed alone ends a line for some readers and not for others",
        has: has_bare_line_feed,
        example: "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "of a length and chunks, which hyper decides for the chunks, another reader may believe the length",
        has: |script| heads(script).any(|head| head.any(CODING) && head.any(LENGTH)),
        example: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "of codings beside chunked, readers that do not know them find another end",
        has: |script| {
            heads(script).any(|head| head.values(CODING).any(|value| !value.eq_ignore_ascii_case(b"chunked")))
        },
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "chunked twice is a body within a body for who goes by the letter",
        has: |script| heads(script).any(|head| head.values(CODING).count() > 1),
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "a length told twice is a sign of tampering, even where it is the same",
        has: |script| heads(script).any(|head| head.values(LENGTH).count() > 1),
        example: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nhi",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "the backend that a request is for is told by one Host, which must be none but a host",
        has: |script| {
            let bad = |byte: &u8| b" \t,/\\@?#".contains(byte);
            let old = |head: &Head<'_>| head.start.ends_with(b"1.0");
            heads(script).any(|head| {
                let hosts = head.values(b"host").count();
                let mut named = head.values(b"host").chain([host(head.target())]);
                hosts > 1 || hosts == 0 && !old(&head) || named.any(|host| host.iter().any(bad))
            })
        },
        example: "GET / HTTP/1.1\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "a target that is neither a path nor a whole URL of HTTP is for no backend",
        has: |script| {
            heads(script).any(|head| {
                let target = head.target();
                let known = [&b"/"[..], b"http://", b"https://"];
                let starts = |with: &&[u8]| {
                    target.get(..with.len()).is_some_and(|start| start.eq_ignore_ascii_case(with))
                };
                head.start.starts_with(b"CONNECT ") || target != b"*" && !known.iter().any(starts)
            })
        },
        example: "GET ftp://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "a length of more digits than any length has is one that other readers may cut",
        has: |script| heads(script).any(|head| head.values(LENGTH).any(|value| value.len() > 18)),
        example: "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0000000000000000002\r\n\r\nhi",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "each name in Connection is compared with each field, so that they are bounded as fields are",
        has: |script| {
            let names = |value: &[u8]| value.iter().filter(|byte| **byte == b',').count();
            heads(script).any(|head| head.values(b"connection").map(names).sum::<usize>() >= 128)
        },
        example: concat!(
            "GET / HTTP/1.1\r\nHost: a\r\nConnection: ",
            "x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,",
            "x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,",
            "x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,x,",
            "\r\n\r\n"
        ),
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "space behind the size of a chunk is not in the grammar, and not known to all readers",
        has: |script| sizes(script).any(|size| size.trim_ascii_end() != size),
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2 \r\nhi\r\n0\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "a size of more digits than fit is another size for a reader that lets the first ones go",
        has: |script| sizes(script).any(|size| size.len() > 16),
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000002\r\nhi\r\n0\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "a control character in a chunk's extension may be the end of its line for another reader",
        has: |script| {
            let control = |byte: &u8| byte.is_ascii_control() && *byte != b'\t';
            lines(script).any(|line| is_size(line) && line.iter().any(control))
        },
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2;a\0b\r\nhi\r\n0\r\n\r\n",
    },
    Meant {
        kind: Difference::WeRefuse,
        why: "trailers that frame or route a message would do so for who merges them with the head",
        has: |script| {
            let framing = [LENGTH, CODING, b"host", b"connection"];
            trailers(script)
                .any(|line| framing.iter().any(|name| field(line).is_some_and(|(of, _)| of == *name)))
        },
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nContent-Length: 3\r\n\r\n",
    },
    Meant {
        kind: Difference::TheyRefuse,
        why: "keys of objects have characters that hyper's type for targets does not know, and are signed as they are",
        has: |script| {
            let odd = |byte: &u8| b"<>`".contains(byte) || *byte >= 0x7f;
            heads(script).any(|head| head.target().iter().any(odd))
        },
        example: "GET /a<b HTTP/1.1\r\nHost: a\r\n\r\n",
    },
    Meant {
        kind: Difference::TheyRefuse,
        why: "who asks by a whole URL may name a user in it as he likes: it is left out",
        has: |script| {
            let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b".:-_@[]".contains(byte);
            heads(script).any(|head| !authority(head.target()).iter().all(plain))
        },
        example: "GET http://|@b/ HTTP/1.1\r\nHost: a\r\n\r\n",
    },
    Meant {
        kind: Difference::PassedOnOtherwise,
        why: "hyper leaves a fragment out, and what is signed has to stay",
        has: |script| heads(script).any(|head| head.target().contains(&b'#')),
        example: "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
    },
    Meant {
        kind: Difference::PassedOnOtherwise,
        why: "hyper leaves out trailers that were not announced, which S3's clients do not always do",
        has: |script| trailers(script).next().is_some(),
        example: "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n",
    },
    Meant {
        kind: Difference::PassedOnOtherwise,
        why: "a client cannot take away by Connection who asks, and whom",
        has: |script| {
            let kept = [&b"host"[..], b"authorization"];
            heads(script).any(|head| {
                head.values(b"connection")
                    .flat_map(|value| value.split(|byte| *byte == b','))
                    .any(|word| kept.iter().any(|kept| word.trim_ascii().eq_ignore_ascii_case(kept)))
            })
        },
        example: "GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization\r\nAuthorization: AWS4\r\n\r\n",
    },
];

const LENGTH: &[u8] = b"content-length";
const CODING: &[u8] = b"transfer-encoding";

/// Lines that a reader may take for the head of a request.
struct Head<'a> {
    start: &'a [u8],
    lines: Vec<&'a [u8]>,
}

impl<'a> Head<'a> {
    fn target(&self) -> &'a [u8] {
        self.start.split(|byte| *byte == b' ').nth(1).unwrap_or_default()
    }

    fn any(&self, name: &[u8]) -> bool {
        self.values(name).next().is_some()
    }

    fn values(&self, name: &[u8]) -> impl Iterator<Item = &'a [u8]> {
        self.lines
            .iter()
            .filter_map(|line| field(line))
            .filter(move |(of, _)| of == name)
            .map(|(_, value)| value)
    }
}

/// Wherever one may begin: in bodies too, which another reader may take for the next request.
fn heads(script: &[u8]) -> impl Iterator<Item = Head<'_>> {
    let lines: Vec<&[u8]> = lines(script).collect();
    let begins = |line: &[u8]| line.windows(7).any(|window| window == b" HTTP/1");
    (0..lines.len()).filter_map(move |at| {
        let end =
            lines[at..].iter().position(|line| line.is_empty()).map_or(lines.len(), |length| at + length);
        begins(lines[at]).then(|| Head { start: lines[at], lines: lines[at + 1..end].to_vec() })
    })
}

/// That of a whole URL.
fn authority(target: &[u8]) -> &[u8] {
    let start = target.windows(3).position(|window| window == b"://").map_or(target.len(), |at| at + 3);
    target[start..].split(|byte| b"/?#".contains(byte)).next().unwrap_or_default()
}

/// That of a whole URL, without the user.
fn host(target: &[u8]) -> &[u8] {
    authority(target).rsplit(|byte| *byte == b'@').next().unwrap_or_default()
}

/// What stands between a last chunk and an empty line.
fn trailers(script: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut within = false;
    lines(script).filter(move |line| {
        let last = line.first() == Some(&b'0') && is_size(line);
        let trailer = within && !line.is_empty();
        within = last || trailer;
        trailer && !last
    })
}

/// Lines that may tell the size of a chunk, without their extensions.
fn sizes(script: &[u8]) -> impl Iterator<Item = &[u8]> {
    lines(script).filter(|line| is_size(line)).map(before_extension)
}

fn is_size(line: &[u8]) -> bool {
    let size = before_extension(line).trim_ascii_end();
    !size.is_empty() && size.iter().all(u8::is_ascii_hexdigit)
}

fn before_extension(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b';').next().unwrap_or_default()
}

fn lines(script: &[u8]) -> impl Iterator<Item = &[u8]> {
    script.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

/// The name in lower case, and the value without the space around it.
fn field(line: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let at = line.iter().position(|byte| *byte == b':')?;
    Some((line[..at].trim_ascii().to_ascii_lowercase(), line[at + 1..].trim_ascii()))
}

fn has_bare_line_feed(script: &[u8]) -> bool {
    (0..script.len()).any(|at| script[at] == b'\n' && (at == 0 || script[at - 1] != b'\r'))
}
