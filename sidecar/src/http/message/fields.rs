//! The header fields of one head, in their order and with their bytes; which of them belong to one connection alone.

use std::ops::Range;

use memchr::memchr_iter;

use super::MAX_FIELDS;

/// A head's bytes, and where each field stands in them. Reused from message to message, so that it allocates once.
#[derive(Debug, Default)]
pub(in crate::http) struct Fields {
    text: Vec<u8>,
    fields: Vec<Field>,
    /// What `Connection` names, beside its own keywords: no more than [`MAX_FIELDS`], since each is compared with each field.
    named: Vec<Range<u32>>,
    /// End of the last field's line.
    end: u32,
}

#[derive(Debug, Clone, Copy)]
struct Field {
    start: u32,
    name_end: u32,
    value_start: u32,
    value_end: u32,
    known: Known,
}

/// The fields that a proxy must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Known {
    Other,
    Host,
    Connection,
    ContentLength,
    TransferEncoding,
    Te,
    Upgrade,
    Expect,
    /// Never meant for anyone behind the next hop.
    HopByHop,
}

/// What the fields of one head say about its connection and its body.
#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    /// `Connection` names `upgrade`.
    pub(super) upgrade: bool,
    /// `Connection` names more fields than a head may have.
    pub(super) names_too_many: bool,
    pub(super) lengths: Lengths,
    pub(super) codings: Codings,
    pub(super) hosts: u32,
}

/// All `Content-Length` together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Lengths {
    #[default]
    None,
    One(u64),
    /// The same value several times.
    Repeated(u64),
    Bad,
}

/// All `Transfer-Encoding` together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Codings {
    #[default]
    None,
    Chunked,
    /// Anything else, or chunked twice.
    Other,
}

impl Known {
    fn of(name: &[u8]) -> Self {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            2 if is("te") => Self::Te,
            4 if is("host") => Self::Host,
            6 if is("expect") => Self::Expect,
            7 if is("upgrade") => Self::Upgrade,
            10 if is("connection") => Self::Connection,
            10 if is("keep-alive") => Self::HopByHop,
            14 if is("content-length") => Self::ContentLength,
            14 if is("http2-settings") => Self::HopByHop,
            16 if is("proxy-connection") => Self::HopByHop,
            17 if is("transfer-encoding") => Self::TransferEncoding,
            _ => Self::Other,
        }
    }

    fn is_hop_by_hop(self) -> bool {
        matches!(self, Self::Connection | Self::Te | Self::Upgrade | Self::HopByHop)
    }
}

impl Fields {
    /// Takes over a head of which `headers` are slices, and sums up what they say. None when a line ends in a bare line feed,
    /// which some readers take for an end and others do not.
    pub(super) fn take(&mut self, head: &[u8], headers: &[httparse::Header<'_>]) -> Option<Summary> {
        if memchr_iter(b'\n', head).any(|at| at == 0 || head[at - 1] != b'\r') {
            return None;
        }
        self.text.clear();
        self.text.extend_from_slice(head);
        self.fields.clear();
        self.named.clear();
        self.end = position(head.len().saturating_sub(2));
        let origin = head.as_ptr() as usize;
        let mut summary = Summary::default();
        for header in headers {
            let start = position(header.name.as_ptr() as usize - origin);
            let value_start = position((header.value.as_ptr() as usize).saturating_sub(origin));
            let field = Field {
                start,
                name_end: start + position(header.name.len()),
                value_start,
                value_end: value_start + position(header.value.len()),
                known: Known::of(header.name.as_bytes()),
            };
            self.fields.push(field);
            self.sum_up(field, &mut summary);
        }
        Some(summary)
    }

    fn sum_up(&mut self, field: Field, summary: &mut Summary) {
        let value = &self.text[field.value_start as usize..field.value_end as usize];
        match field.known {
            Known::Host => summary.hosts += 1,
            Known::ContentLength => summary.lengths = summary.lengths.and(value),
            Known::TransferEncoding => {
                let chunked = value.eq_ignore_ascii_case(b"chunked");
                summary.codings = match summary.codings {
                    Codings::None if chunked => Codings::Chunked,
                    _ => Codings::Other,
                };
            }
            Known::Connection => {
                for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
                    match token {
                        b"" => {}
                        token if token.eq_ignore_ascii_case(b"close") => summary.close = true,
                        token if token.eq_ignore_ascii_case(b"keep-alive") => summary.keep_alive = true,
                        token if token.eq_ignore_ascii_case(b"upgrade") => summary.upgrade = true,
                        token if is_protected(token) => {}
                        _ if self.named.len() == MAX_FIELDS => summary.names_too_many = true,
                        token => {
                            let start = position(token.as_ptr() as usize - self.text.as_ptr() as usize);
                            self.named.push(start..start + position(token.len()));
                        }
                    }
                }
            }
            Known::Other | Known::Te | Known::Upgrade | Known::Expect | Known::HopByHop => {}
        }
    }

    /// The head's bytes.
    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The first value of a field.
    pub(in crate::http) fn get(&self, name: &str) -> Option<&[u8]> {
        self.all(name).next()
    }

    /// Each value of a field.
    pub(in crate::http) fn all(&self, name: &str) -> impl Iterator<Item = &[u8]> {
        self.fields
            .iter()
            .filter(move |field| self.name(field).eq_ignore_ascii_case(name.as_bytes()))
            .map(|field| self.value(field))
    }

    /// Name and value of each field.
    #[cfg(any(test, fuzzing))]
    pub(super) fn each(&self) -> impl Iterator<Item = (String, &[u8])> {
        let name = |field| String::from_utf8_lossy(self.name(field)).into_owned();
        self.fields.iter().map(move |field| (name(field), self.value(field)))
    }

    pub(super) fn known(&self, known: Known) -> impl Iterator<Item = &[u8]> {
        self.fields.iter().filter(move |field| field.known == known).map(|field| self.value(field))
    }

    /// Whether one of the members of a comma-separated field is this one.
    pub(super) fn lists(&self, known: Known, member: &str) -> bool {
        self.known(known)
            .flat_map(|value| value.split(|byte| *byte == b','))
            .any(|found| found.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
    }

    /// Writes the lines that are meant for the next hop, except those that `leave` asks to leave out.
    pub(super) fn write_end_to_end(&self, out: &mut Vec<u8>, leave: impl Fn(Known, &[u8]) -> bool) {
        let mut run: Option<Range<u32>> = None;
        for (index, field) in self.fields.iter().enumerate() {
            let end = self.fields.get(index + 1).map_or(self.end, |next| next.start);
            let goes = field.known.is_hop_by_hop()
                || leave(field.known, self.name(field))
                || !self.named.is_empty() && self.is_named(field);
            match (&mut run, goes) {
                (Some(run), false) => run.end = end,
                (None, false) => run = Some(field.start..end),
                (Some(done), true) => {
                    out.extend_from_slice(&self.text[done.start as usize..done.end as usize]);
                    run = None;
                }
                (None, true) => {}
            }
        }
        if let Some(run) = run {
            out.extend_from_slice(&self.text[run.start as usize..run.end as usize]);
        }
    }

    fn is_named(&self, field: &Field) -> bool {
        self.named
            .iter()
            .map(|named| &self.text[named.start as usize..named.end as usize])
            .any(|named| named.eq_ignore_ascii_case(self.name(field)))
    }

    fn name(&self, field: &Field) -> &[u8] {
        &self.text[field.start as usize..field.name_end as usize]
    }

    fn value(&self, field: &Field) -> &[u8] {
        &self.text[field.value_start as usize..field.value_end as usize]
    }
}

impl Lengths {
    fn and(self, value: &[u8]) -> Self {
        let value = length(value);
        match (self, value) {
            (Self::None, Some(value)) => Self::One(value),
            (Self::One(first) | Self::Repeated(first), Some(value)) if first == value => {
                Self::Repeated(first)
            }
            _ => Self::Bad,
        }
    }
}

/// Digits alone: no sign, no list, no more than fits.
fn length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || value.len() > 18 || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

/// End-to-end fields that a `Connection` field must not take away: without them the message would mean another, or its backend
/// would not know who asks.
fn is_protected(token: &[u8]) -> bool {
    const NAMES: [&str; 10] = [
        "host",
        "content-length",
        "transfer-encoding",
        "authorization",
        "expect",
        "traceparent",
        "tracestate",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-real-ip",
    ];
    NAMES.iter().any(|name| token.eq_ignore_ascii_case(name.as_bytes()))
}

/// Heads are short, so that four bytes hold every position.
fn position(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
