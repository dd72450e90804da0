//! W3C Trace Context: a valid `traceparent` is kept as it is; without one a trace begins here. Pure.

use super::message::Fields;

/// Left out where a trace begins: the state of a trace that cannot be read belongs to no other.
const REPLACED: &[&str] = &["traceparent", "tracestate"];

const NAME: &[u8] = b"traceparent: ";
/// `00-`, 32 digits of the trace, `-`, 16 of the request that is its parent, `-`, 2 of flags.
const VALUE: usize = 55;
const ID: std::ops::Range<usize> = 3..35;

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    value: [u8; VALUE],
    /// It begins here, so that the backend must be told.
    begins: bool,
}

impl Trace {
    /// The trace that these fields name, or a new one. Of this many new ones one is sampled.
    pub(super) fn of(fields: &Fields, one_in: usize, random: &mut fastrand::Rng) -> Self {
        let mut values = fields.all("traceparent");
        match (values.next().and_then(parse), values.next()) {
            (Some(value), None) => Self { value, begins: false },
            _ => Self::begin(random.usize(..one_in) == 0, random),
        }
    }

    fn begin(sampled: bool, random: &mut fastrand::Rng) -> Self {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        // All zeros would be no id.
        digits(random.u128(1..), &mut value[ID]);
        digits(random.u64(1..).into(), &mut value[36..52]);
        value[54] = b'0' + u8::from(sampled);
        Self { value, begins: true }
    }

    /// 32 hexadecimal digits.
    pub(super) fn id(&self) -> &[u8] {
        &self.value[ID]
    }

    /// Tells a backend of it: which fields are left out, and which lines are added.
    pub(super) fn tell(&self, without: &mut Vec<&'static str>, lines: &mut Vec<u8>) {
        if self.begins {
            without.extend_from_slice(REPLACED);
            lines.extend_from_slice(NAME);
            lines.extend_from_slice(&self.value);
            lines.extend_from_slice(b"\r\n");
        }
    }
}

/// A valid value's first part, which is all of it in version 00. Later versions may add to it.
fn parse(value: &[u8]) -> Option<[u8; VALUE]> {
    let (first, rest) = value.split_first_chunk::<VALUE>()?;
    let is_hex = |digits: &[u8]| digits.iter().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |digits: &[u8]| is_hex(digits) && digits.iter().any(|digit| *digit != b'0');
    let whole = match &first[..2] {
        b"00" => rest.is_empty(),
        b"ff" => false,
        _ => rest.first().is_none_or(|next| *next == b'-'),
    };
    let valid = whole
        && is_hex(&first[..2])
        && [2, 35, 52].iter().all(|at| first[*at] == b'-')
        && is_id(&first[ID])
        && is_id(&first[36..52])
        && is_hex(&first[53..]);
    valid.then_some(*first)
}

fn digits(mut value: u128, out: &mut [u8]) {
    for digit in out.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(value % 16) as usize];
        value /= 16;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http::message::{Edits, RequestHead};

    const VALID: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// The trace of a request with these fields, and what a backend gets.
    fn forwarded(fields: &str, one_in: usize) -> (Trace, String) {
        let mut head = RequestHead::default();
        head.parse(format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes()).unwrap().unwrap();
        let trace = Trace::of(&head.fields, one_in, &mut fastrand::Rng::with_seed(7));
        let (mut without, mut lines, mut out) = (Vec::new(), Vec::new(), Vec::new());
        trace.tell(&mut without, &mut lines);
        head.write(&mut out, Edits { without: &without, extra: &lines, ..Edits::default() });
        (trace, String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_valid_trace_goes_on_byte_for_byte() {
        for value in [
            VALID,
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff",
            "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what.comes",
        ] {
            let fields = format!("TraceParent: {value}\r\ntracestate: a=1,b=2\r\n");
            let (trace, request) = forwarded(&fields, 1);
            assert_eq!(trace.id(), b"0af7651916cd43dd8448eb211c80319c");
            assert_eq!(request, format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n"));
        }
    }

    #[test]
    fn what_is_no_trace_is_replaced_with_its_state() {
        let twice = format!("traceparent: {VALID}\r\nTraceparent: {VALID}\r\n");
        for fields in [
            "",
            "traceparent: \r\n",
            "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\n",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01\r\n",
            "traceparent: 00-0AF7651916CD43DD8448EB211C80319C-B7AD6B7169203331-01\r\n",
            "traceparent: ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more\r\n",
            "traceparent: cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01.more\r\n",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0x\r\n",
            "traceparent: 00_0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331\r\n",
            &twice,
        ] {
            let (trace, request) = forwarded(&format!("{fields}TraceState: a=1\r\n"), 1);
            let id = std::str::from_utf8(trace.id()).unwrap();
            let lines: Vec<&str> = request.lines().collect();
            let [_, "Host: a", line, ""] = lines[..] else { panic!("{lines:?}") };
            let value = line.strip_prefix("traceparent: ").unwrap();
            assert!(value.starts_with(&format!("00-{id}-")) && value.ends_with("-01"), "{value}");
            assert!(parse(value.as_bytes()).is_some(), "{value}");
        }
    }

    proptest! {
        #[test]
        fn every_trace_that_begins_is_valid_and_another(seed: u64, sampled: bool) {
            let mut random = fastrand::Rng::with_seed(seed);
            let (a, b) = (Trace::begin(sampled, &mut random), Trace::begin(sampled, &mut random));
            prop_assert_eq!(parse(&a.value), Some(a.value));
            prop_assert_eq!(a.value[54] == b'1', sampled);
            prop_assert_ne!(a.id(), b.id());
        }
    }

    #[test]
    fn of_the_traces_that_begin_the_wanted_share_is_sampled() {
        let mut head = RequestHead::default();
        head.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let sampled =
            (0..10_000).filter(|_| Trace::of(&head.fields, 10, &mut random).value[54] == b'1').count();
        assert!((800..1200).contains(&sampled), "{sampled}");
    }
}
