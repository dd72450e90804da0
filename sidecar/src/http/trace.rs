//! W3C Trace Context: a valid `traceparent` is kept as it is; without one a trace begins here. A trace that is recorded gets a
//! span of the sidecar, which is the parent of what the backend does. Pure.

use super::message::Fields;

/// Left out where a trace begins: the state of a trace that cannot be read belongs to no other.
const REPLACED: &[&str] = &["traceparent", "tracestate"];
/// Left out where the sidecar is a step of a trace.
const CONTINUED: &[&str] = &["traceparent"];

const NAME: &[u8] = b"traceparent: ";
/// `00-`, 32 digits of the trace, `-`, 16 of the request that is its parent, `-`, 2 of flags.
const VALUE: usize = 55;
const ID: std::ops::Range<usize> = 3..35;
const SPAN: std::ops::Range<usize> = 36..52;

/// The trace that a request belongs to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trace {
    value: [u8; VALUE],
    /// It begins here, so that the backend must be told.
    begins: bool,
    /// The span in the value is the sidecar's own, and a collector is told of it.
    recorded: bool,
    /// The span that the client has named.
    parent: Option<[u8; 8]>,
}

/// The ids of a span that is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) trace: [u8; 16],
    pub(super) own: [u8; 8],
    pub(super) parent: Option<[u8; 8]>,
}

impl Trace {
    /// The trace that these fields name, or a new one. Of this many new ones one is sampled; sampled ones are recorded where
    /// spans are exported.
    pub(super) fn of(fields: &Fields, one_in: usize, exports: bool, random: &mut fastrand::Rng) -> Self {
        let mut values = fields.all("traceparent");
        let trace = match (values.next().and_then(parse), values.next()) {
            (Some(value), None) => Self { value, begins: false, recorded: false, parent: None },
            _ => Self::begin(random.usize(..one_in) == 0, random),
        };
        if exports && trace.is_sampled() { trace.recorded(random) } else { trace }
    }

    fn is_sampled(&self) -> bool {
        matches!(self.value[54], b'1' | b'3' | b'5' | b'7' | b'9' | b'b' | b'd' | b'f')
    }

    /// A step of its own in the trace, as version 00 writes it.
    fn recorded(mut self, random: &mut fastrand::Rng) -> Self {
        if !self.begins {
            self.parent = u64::try_from(number(&self.value[SPAN])).ok().map(u64::to_be_bytes);
            digits(random.u64(1..).into(), &mut self.value[SPAN]);
            self.value[..2].copy_from_slice(b"00");
            self.value[53..].copy_from_slice(b"01");
        }
        Self { recorded: true, ..self }
    }

    /// What a collector is told of it; none where it is not.
    pub(super) fn ids(&self) -> Option<Ids> {
        let own = u64::try_from(number(&self.value[SPAN])).ok().filter(|_| self.recorded)?;
        let trace = number(&self.value[ID]).to_be_bytes();
        Some(Ids { trace, own: own.to_be_bytes(), parent: self.parent })
    }

    fn begin(sampled: bool, random: &mut fastrand::Rng) -> Self {
        let mut value = *b"00-00000000000000000000000000000000-0000000000000000-00";
        // All zeros would be no id.
        digits(random.u128(1..), &mut value[ID]);
        digits(random.u64(1..).into(), &mut value[SPAN]);
        value[54] = b'0' + u8::from(sampled);
        Self { value, begins: true, recorded: false, parent: None }
    }

    /// 32 hexadecimal digits.
    pub(super) fn id(&self) -> &[u8] {
        &self.value[ID]
    }

    /// Tells a backend of it: which fields are left out, and which lines are added.
    pub(super) fn tell(&self, without: &mut Vec<&'static str>, lines: &mut Vec<u8>) {
        if self.begins || self.recorded {
            without.extend_from_slice(if self.begins { REPLACED } else { CONTINUED });
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

/// The value of hexadecimal digits.
fn number(digits: &[u8]) -> u128 {
    let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
    digits.iter().fold(0, |value, byte| value << 4 | u128::from(digit(*byte)))
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
        let trace = Trace::of(&head.fields, one_in, false, &mut fastrand::Rng::with_seed(7));
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
    fn a_recorded_trace_gets_a_step_of_its_own() {
        let mut head = RequestHead::default();
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\ntraceparent: {VALID}\r\ntracestate: a=1\r\n\r\n");
        head.parse(text.as_bytes()).unwrap().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let trace = Trace::of(&head.fields, 1, true, &mut random);
        let ids = trace.ids().unwrap();
        assert_eq!(ids.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        assert_eq!(ids.parent, Some(0xb7ad_6b71_6920_3331_u64.to_be_bytes()));
        let (mut without, mut lines) = (Vec::new(), Vec::new());
        trace.tell(&mut without, &mut lines);
        assert_eq!(without, CONTINUED, "the state of the trace goes on");
        let own = format!("{:016x}", u64::from_be_bytes(ids.own));
        assert_eq!(
            String::from_utf8(lines).unwrap(),
            format!("traceparent: 00-0af7651916cd43dd8448eb211c80319c-{own}-01\r\n")
        );
        let begun = Trace::of(&RequestHead::default().fields, 1, true, &mut random).ids().unwrap();
        assert_eq!(begun.parent, None);
        assert!(Trace::of(&RequestHead::default().fields, usize::MAX, true, &mut random).ids().is_none());
    }

    #[test]
    fn of_the_traces_that_begin_the_wanted_share_is_sampled() {
        let mut head = RequestHead::default();
        head.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap().unwrap();
        let mut random = fastrand::Rng::with_seed(1);
        let sampled =
            (0..10_000).filter(|_| Trace::of(&head.fields, 10, false, &mut random).value[54] == b'1').count();
        assert!((800..1200).contains(&sampled), "{sampled}");
    }
}
