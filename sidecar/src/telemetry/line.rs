//! One line of an access log, field by field -> bytes. Nothing here allocates once the buffer has grown.
//!
//! Both formats have the same fields in the same order: what there is nothing to say of is `null` in JSON and `-` in text.

use std::{fmt::Display, io::Write as _, time::Duration};

use crds::config::AccessLogFormat;

/// A line that is being written; [`end`](Line::end) ends it.
pub(crate) struct Line<'a> {
    out: &'a mut Vec<u8>,
    json: bool,
    first: bool,
}

/// A value in quotes that comes in pieces.
pub(crate) struct Pieces<'a>(&'a mut Vec<u8>);

impl<'a> Line<'a> {
    /// Appends to `out`.
    pub(crate) fn new(out: &'a mut Vec<u8>, format: AccessLogFormat) -> Self {
        Self { out, json: format == AccessLogFormat::Json, first: true }
    }

    fn name(&mut self, name: &str) {
        match (self.json, std::mem::replace(&mut self.first, false)) {
            (true, true) => self.out.extend_from_slice(b"{\""),
            (true, false) => self.out.extend_from_slice(b",\""),
            (false, true) => {}
            (false, false) => self.out.push(b' '),
        }
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(if self.json { b"\":" } else { b"=" });
    }

    pub(crate) fn end(self) {
        self.out.extend_from_slice(if self.json { b"}\n" } else { b"\n" });
    }

    fn nothing(&mut self) {
        self.out.extend_from_slice(if self.json { b"null" } else { b"-" });
    }

    /// Text of the sidecar's own making, with nothing to escape.
    pub(crate) fn token(&mut self, name: &str, value: Option<&[u8]>) {
        self.name(name);
        let Some(value) = value else { return self.nothing() };
        if self.json {
            self.out.push(b'"');
        }
        self.out.extend_from_slice(value);
        if self.json {
            self.out.push(b'"');
        }
    }

    /// Text from outside.
    pub(crate) fn text(&mut self, name: &str, value: Option<&[u8]>) {
        self.name(name);
        let Some(value) = value else { return self.nothing() };
        if !self.json && is_bare(value) {
            return self.out.extend_from_slice(value);
        }
        self.out.push(b'"');
        escape(self.out, value);
        self.out.push(b'"');
    }

    /// Text from outside that `write` gives in pieces, always in quotes.
    pub(crate) fn pieces(&mut self, name: &str, write: Option<impl FnOnce(&mut Pieces<'_>)>) {
        self.name(name);
        let Some(write) = write else { return self.nothing() };
        self.out.push(b'"');
        write(&mut Pieces(self.out));
        self.out.push(b'"');
    }

    /// What has nothing to escape.
    pub(crate) fn shown(&mut self, name: &str, value: Option<&impl Display>) {
        self.name(name);
        let Some(value) = value else { return self.nothing() };
        let quote = if self.json { "\"" } else { "" };
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "{quote}{value}{quote}");
    }

    pub(crate) fn number(&mut self, name: &str, value: Option<u64>) {
        self.name(name);
        match value {
            Some(value) => self.out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes()),
            None => self.nothing(),
        }
    }

    pub(crate) fn seconds(&mut self, name: &str, value: Option<Duration>) {
        self.number(name, value.map(|value| value.as_secs()));
        let Some(value) = value else { return };
        self.out.push(b'.');
        // Six digits: the first one of seven is cut off.
        let micros = 1_000_000 + value.subsec_micros();
        self.out.extend_from_slice(&itoa::Buffer::new().format(micros).as_bytes()[1..]);
    }
}

impl Pieces<'_> {
    pub(crate) fn piece(&mut self, piece: &[u8]) {
        escape(self.0, piece);
    }
}

/// Nothing that would end a value between spaces, or pass for none.
fn is_bare(value: &[u8]) -> bool {
    !value.is_empty()
        && value != b"-"
        && value.iter().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'='))
}

/// As JSON escapes text, without the quotes. Bytes that are not UTF-8 become the replacement character.
fn escape(out: &mut Vec<u8>, value: &[u8]) {
    if value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        return out.extend_from_slice(value);
    }
    let start = out.len();
    // Neither text nor a Vec can fail.
    let _ = serde_json::to_writer(&mut *out, String::from_utf8_lossy(value).as_ref());
    out.pop();
    out.remove(start);
}
