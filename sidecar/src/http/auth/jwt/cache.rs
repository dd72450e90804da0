//! Tokens that were verified a moment ago, by thread: a signature costs more than the rest of a request.
//!
//! Held are digests, never tokens, until they expire, another set of keys is in use, or there are too many: then those
//! that were not used since the last time make way.

use std::{collections::HashMap, mem, rc::Rc, sync::Arc};

use sha2::{Digest, Sha256};

use super::key_set::KeySet;

/// Tokens of one generation; there are two.
const MOST: usize = 512;

/// What was found out of a token.
#[derive(Debug, Clone)]
pub(super) struct Known {
    /// Seconds since 1970, from which on it is no longer good.
    pub(super) until: u64,
    /// The lines that a backend is told; none for a client that no rule lets in.
    pub(super) lines: Option<Rc<[u8]>>,
}

/// The tokens that one listener knows on one thread.
#[derive(Debug, Default)]
pub(in crate::http) struct Tokens {
    keys: Option<Arc<KeySet>>,
    young: HashMap<[u8; 32], Known>,
    old: HashMap<[u8; 32], Known>,
}

pub(super) fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

impl Tokens {
    /// Forgets all, since rules or issuer may be others now.
    pub(in crate::http) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn find(&mut self, keys: &Arc<KeySet>, digest: &[u8; 32], now: u64) -> Option<Known> {
        if !self.keys.as_ref().is_some_and(|known| Arc::ptr_eq(known, keys)) {
            *self = Self { keys: Some(Arc::clone(keys)), ..Self::default() };
            return None;
        }
        if let Some(known) = self.young.get(digest) {
            return Some(known.clone()).filter(|known| now < known.until);
        }
        let known = self.old.remove(digest).filter(|known| now < known.until)?;
        self.insert(*digest, known.clone());
        Some(known)
    }

    pub(super) fn insert(&mut self, digest: [u8; 32], known: Known) {
        if self.young.len() >= MOST {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(digest, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Arc<KeySet> {
        let set = br#"{"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}]}"#;
        Arc::new(KeySet::parse(set).unwrap())
    }

    fn number(number: usize) -> [u8; 32] {
        digest(&number.to_ne_bytes())
    }

    fn known(until: u64) -> Known {
        Known { until, lines: None }
    }

    #[test]
    fn a_token_is_known_until_it_expires_or_the_keys_change() {
        let (mut tokens, keys, others) = (Tokens::default(), keys(), keys());
        assert!(tokens.find(&keys, &number(1), 0).is_none());
        tokens.insert(number(1), known(100));
        assert!(tokens.find(&keys, &number(1), 99).is_some());
        assert!(tokens.find(&keys, &number(1), 100).is_none());
        assert!(tokens.find(&others, &number(1), 99).is_none());
        assert!(tokens.find(&keys, &number(1), 99).is_none(), "the keys had been others in between");
    }

    #[test]
    fn no_number_of_tokens_makes_it_grow_and_those_in_use_stay() {
        let (mut tokens, keys) = (Tokens::default(), keys());
        tokens.find(&keys, &number(0), 0);
        tokens.insert(number(0), known(100));
        for other in 1..10 * MOST {
            tokens.insert(number(other), known(100));
            assert!(tokens.find(&keys, &number(0), 0).is_some());
            assert!(tokens.young.len() + tokens.old.len() <= 2 * MOST);
        }
        assert!(tokens.find(&keys, &number(1), 0).is_none());
    }
}
