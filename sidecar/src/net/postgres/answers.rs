//! What a server says until its client may ask the first question, read for one thing: the key to cancel by. The bytes are looked
//! at on their way, in whichever pieces they come, and nothing of them is kept but the key.

use super::{CancelKey, LONGEST_SECRET};

const KEY_DATA: u8 = b'K';
const READY: u8 = b'Z';
const ERROR: u8 = b'E';

/// What may come before the key: of authentication, parameters, notices, versions.
const OTHERS: [u8; 4] = [b'R', b'S', b'N', b'v'];

/// A type, and the length of all but that.
const HEAD: usize = 5;
const LENGTH: usize = 4;
/// Of a process and the longest secret.
const LONGEST_KEY: usize = 4 + LONGEST_SECRET;
/// Nothing of a start is longer.
const LONGEST_MESSAGE: usize = 64 * 1024;
/// Who has said so much, or more, has no key to give. Less than what goes by before bytes move unseen.
pub(super) const LONGEST_TALK: usize = 128 * 1024;

/// Reads the answers of one server.
#[derive(Debug)]
pub struct Answers {
    state: State,
    left: usize,
}

#[derive(Debug)]
enum State {
    Head(Part<HEAD>),
    Skip(usize),
    Key(usize, Box<Part<LONGEST_KEY>>),
    /// There is nothing more to learn.
    Over,
}

/// The bytes of something that are there already.
#[derive(Debug)]
struct Part<const MOST: usize> {
    bytes: [u8; MOST],
    count: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Self { state: State::Head(Part::new()), left: LONGEST_TALK }
    }
}

impl Answers {
    /// Whether it may still find a key.
    pub fn goes_on(&self) -> bool {
        !matches!(self.state, State::Over)
    }

    /// Looks at the next bytes; gives the key once.
    pub fn read(&mut self, mut bytes: &[u8]) -> Option<CancelKey> {
        let Some(left) = self.left.checked_sub(bytes.len()) else {
            self.state = State::Over;
            return None;
        };
        self.left = left;
        loop {
            self.state = match &mut self.state {
                State::Over => return None,
                _ if bytes.is_empty() => return None,
                State::Head(head) => {
                    bytes = head.take(bytes, HEAD);
                    if head.count < HEAD {
                        return None;
                    }
                    let [kind, length @ ..] = head.bytes;
                    after_head(kind, u32::from_be_bytes(length) as usize)
                }
                State::Skip(rest) => {
                    let skipped = bytes.len().min(*rest);
                    bytes = &bytes[skipped..];
                    if skipped < *rest { State::Skip(*rest - skipped) } else { State::Head(Part::new()) }
                }
                State::Key(length, key) => {
                    key.take(bytes, *length);
                    if key.count < *length {
                        return None;
                    }
                    let key = CancelKey::read(&key.bytes[..key.count]);
                    self.state = State::Over;
                    return key;
                }
            };
        }
    }
}

fn after_head(kind: u8, length: usize) -> State {
    let Some(rest) = length.checked_sub(LENGTH) else { return State::Over };
    match kind {
        KEY_DATA if rest <= LONGEST_KEY => State::Key(rest, Box::new(Part::new())),
        KEY_DATA | READY | ERROR => State::Over,
        _ if !OTHERS.contains(&kind) || rest > LONGEST_MESSAGE => State::Over,
        _ if rest == 0 => State::Head(Part::new()),
        _ => State::Skip(rest),
    }
}

impl<const MOST: usize> Part<MOST> {
    fn new() -> Self {
        Self { bytes: [0; MOST], count: 0 }
    }

    /// Takes up to `wanted` bytes in all, and gives the rest back.
    fn take<'a>(&mut self, bytes: &'a [u8], wanted: usize) -> &'a [u8] {
        let (taken, rest) = bytes.split_at(bytes.len().min(wanted.saturating_sub(self.count)));
        self.bytes[self.count..self.count + taken.len()].copy_from_slice(taken);
        self.count += taken.len();
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        [&[kind][..], &((body.len() + LENGTH) as u32).to_be_bytes(), body].concat()
    }

    /// As PostgreSQL says it: a challenge, that all is well, parameters, the key, ready.
    fn talk(secret: &[u8]) -> Vec<u8> {
        [
            message(b'R', &[0, 0, 0, 10, 1, 2]),
            message(b'R', &[0; 4]),
            message(b'S', b"server_version\x0017.2\0"),
            message(b'N', b""),
            message(b'K', &[&7u32.to_be_bytes(), secret].concat()),
            message(b'Z', b"I"),
        ]
        .concat()
    }

    fn key(secret: &[u8]) -> Option<CancelKey> {
        CancelKey::read(&[&7u32.to_be_bytes(), secret].concat())
    }

    /// The key that is found in the bytes, in pieces of this size.
    fn found(mut answers: Answers, bytes: &[u8], piece: usize) -> Option<CancelKey> {
        bytes.chunks(piece).find_map(|piece| answers.read(piece))
    }

    proptest! {
        #[test]
        fn the_key_is_found_in_whichever_pieces_it_comes(
            secret in prop::collection::vec(any::<u8>(), 1..=256), piece in 1usize..600,
        ) {
            prop_assert_eq!(found(Answers::default(), &talk(&secret), piece), key(&secret));
        }
    }

    #[test]
    fn a_server_that_gives_no_key_is_looked_at_no_longer_than_its_start() {
        let secret = [1; 4];
        for before in [
            message(b'E', b"SFATAL\0"),
            message(b'Z', b"I"),
            message(b'D', b"a row"),
            message(b'K', &[1; 261]),
            vec![b'R', 0, 0, 0, 3],
            vec![b'S', 0xff, 0xff, 0xff, 0xff],
            vec![0x15, 3, 3, 0, 2],
            message(b'S', &[1; 60_000]).repeat(3),
        ] {
            let mut answers = Answers::default();
            assert_eq!(answers.read(&[before, talk(&secret)].concat()), None);
            assert!(!answers.goes_on());
        }
    }
}
