//! Which proofs of a password a server offers (AuthenticationSASL), without those that bind the channel: for a client in plain
//! text, whose library ends the connection when it is offered them, while the sidecar speaks TLS with the server. No byte behind
//! the offer is taken.

/// What comes before an offer, from a server that speaks an older version of the protocol than was asked for.
const NEGOTIATE: u8 = b'v';
const AUTHENTICATION: u8 = b'R';
const SASL: [u8; 4] = 10u32.to_be_bytes();

/// A type, and the length of all but that.
const HEAD: usize = 5;

/// Ends the name of a mechanism that binds the channel.
const BINDING: &[u8] = b"-PLUS\0";

/// The longest message that is held back until it is whole. PostgreSQL's have 43 bytes.
pub const LONGEST_OFFER: usize = 1024;

/// One message, until it is whole.
#[derive(Debug, Default)]
pub struct Offer {
    bytes: Vec<u8>,
}

impl Offer {
    /// So many bytes more are of the message, at most [`LONGEST_OFFER`]; 0 once it is whole, or is none to wait for.
    pub fn wanted(&self) -> usize {
        self.size().saturating_sub(self.bytes.len())
    }

    /// As much of the message as is to be waited for.
    fn size(&self) -> usize {
        match *self.bytes {
            [AUTHENTICATION | NEGOTIATE, a, b, c, d, ..] => {
                let size = (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(1);
                if size > LONGEST_OFFER { 0 } else { size }
            }
            [] | [AUTHENTICATION | NEGOTIATE, ..] => HEAD,
            _ => 0,
        }
    }

    /// Takes the next bytes, no more than are [`wanted`](Self::wanted).
    pub fn hear(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether the offer may come with the next message.
    pub fn goes_on(&self) -> bool {
        self.bytes.first() == Some(&NEGOTIATE) && self.bytes.len() == self.size()
    }

    /// What the client is to hear: what was heard, but for mechanisms that it cannot use, if there are others.
    pub fn for_plain_text(self) -> Vec<u8> {
        let shortened = self.names().and_then(without_binding);
        shortened.unwrap_or(self.bytes)
    }

    /// The mechanisms of a whole offer.
    fn names(&self) -> Option<&[u8]> {
        let (head, body) = self.bytes.split_first_chunk::<HEAD>()?;
        let names = body.strip_prefix(&SASL)?;
        (head[0] == AUTHENTICATION && self.bytes.len() == self.size() && names.ends_with(b"\0\0"))
            .then_some(names)
    }
}

/// None if no mechanism would be left.
fn without_binding(names: &[u8]) -> Option<Vec<u8>> {
    let kept: Vec<_> =
        names.split_inclusive(|byte| *byte == 0).filter(|name| !name.ends_with(BINDING)).collect();
    if kept.first()?.len() == 1 {
        return None;
    }
    let names = kept.concat();
    // Of at most a kilobyte.
    let length = (4 + SASL.len() + names.len()) as u32;
    Some([&[AUTHENTICATION][..], &length.to_be_bytes(), &SASL, &names].concat())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &((body.len() + 4) as u32).to_be_bytes(), body].concat()
    }

    fn offer(names: &[u8]) -> Vec<u8> {
        message(AUTHENTICATION, &[&SASL, names].concat())
    }

    /// What a client hears of a server's words that come in pieces of this size, and how many bytes were held back at most.
    fn heard(mut words: &[u8], piece: usize) -> (Vec<u8>, usize) {
        let (mut all, mut most) = (Vec::new(), 0);
        loop {
            let mut offer = Offer::default();
            while offer.wanted() > 0 && !words.is_empty() {
                let (taken, rest) = words.split_at(offer.wanted().min(piece).min(words.len()));
                offer.hear(taken);
                most = most.max(offer.bytes.len());
                words = rest;
            }
            let goes_on = offer.goes_on();
            all.extend(offer.for_plain_text());
            if !goes_on {
                return ([&all, words].concat(), most);
            }
        }
    }

    #[test]
    fn an_offer_loses_what_binds_the_channel_unless_nothing_else_is_left() {
        let rest = message(AUTHENTICATION, &[0; 4]);
        for (names, left) in [
            (&b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"[..], &b"SCRAM-SHA-256\0\0"[..]),
            (b"SCRAM-SHA-256\0SCRAM-SHA-256-PLUS\0OAUTHBEARER\0\0", b"SCRAM-SHA-256\0OAUTHBEARER\0\0"),
            (b"SCRAM-SHA-256\0\0", b"SCRAM-SHA-256\0\0"),
            (b"SCRAM-SHA-256-PLUS\0\0", b"SCRAM-SHA-256-PLUS\0\0"),
            (b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0", b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0"),
            (b"\0", b"\0"),
            (b"", b""),
        ] {
            let older = message(NEGOTIATE, &[0, 3, 0, 0, 0, 0, 0, 0]);
            for piece in [1, 7, 4096] {
                let said = [&older, &offer(names), &rest, &offer(names)].map(Vec::as_slice).concat();
                let expected = [&older, &offer(left), &rest, &offer(names)].map(Vec::as_slice).concat();
                assert_eq!(heard(&said, piece).0, expected, "{names:?} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn what_is_no_offer_goes_on_as_it_came_and_is_not_waited_for() {
        for said in [
            &b"S"[..],
            b"E\0\0\0\x0cSFATAL\0\0",
            b"R\0\0\0\x0c\0\0\0\x05salt",
            b"R\0\0\0\x08\0\0\0\0",
            b"R\0\0\0\0",
            b"R\xff\xff\xff\xff\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
            b"v\0\0\0\0R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
            b"v\xff\xff\xff\xffR\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0",
            b"R\0\0\0\x2a\0\0\0\x0aSCRAM-SHA-256-PLUS\0SCRAM-",
        ] {
            assert_eq!(heard(said, 3).0, said);
        }
        let mut offer = Offer::default();
        offer.hear(b"S");
        assert_eq!(offer.wanted(), 0);
    }

    proptest! {
        #[test]
        fn whatever_a_server_says_is_held_back_within_the_limit_and_comes_through(
            words in prop::collection::vec(any::<u8>(), 0..3000), first in prop::sample::select(vec![b'R', b'v', b'Z']),
            length in 0u16..3000, piece in 1usize..100,
        ) {
            let words = [&[first, 0, 0][..], &length.to_be_bytes(), &words].concat();
            let (all, most) = heard(&words, piece);
            prop_assert!(most <= LONGEST_OFFER);
            if memchr::memmem::find(&words, BINDING).is_none() {
                prop_assert_eq!(all, words);
            }
        }
    }
}
