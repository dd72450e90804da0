//! Where the rate limit of each key stands: a table of fixed size, without locks.
//!
//! A key has its place in one of the ways of one set. In a set without room, the key that is nearest to its full allowance
//! makes way, and leaves its state to the one that comes: with more keys at once than there is room for, some have less
//! than their allowance, none ever has more, and memory stays as it is.

use std::sync::atomic::{AtomicU64, Ordering};

/// Places of one set, which are looked through for a key.
const WAYS: usize = 8;

/// No key.
const FREE: u64 = 0;

/// Keys are hashes, so that two of the same count as one.
#[derive(Debug)]
pub(super) struct Table {
    sets: Box<[[Place; WAYS]]>,
}

#[derive(Debug, Default)]
struct Place {
    key: AtomicU64,
    /// When the key has its full allowance again; 0 before the first time. It never goes back.
    state: AtomicU64,
}

impl Table {
    /// Room for about as many keys. `keys` is a power of two.
    pub(super) fn new(keys: usize) -> Self {
        Self { sets: (0..(keys / WAYS).max(1)).map(|_| Default::default()).collect() }
    }

    /// Keys that have a place.
    #[cfg(test)]
    fn keys(&self) -> usize {
        self.sets.iter().flatten().filter(|place| place.key.load(Ordering::Relaxed) != FREE).count()
    }

    fn place(&self, key: u64) -> &AtomicU64 {
        // The lowest bit tells a key from none; those above it choose the set.
        let (key, set) = (key | 1, &self.sets[(key >> 1) as usize % self.sets.len()]);
        loop {
            let (mut taken, mut state) = (&set[0], u64::MAX);
            for place in set {
                let held = place.key.load(Ordering::Acquire);
                if held == key {
                    return &place.state;
                }
                let held = if held == FREE { 0 } else { place.state.load(Ordering::Relaxed).max(1) };
                if held < state {
                    (taken, state) = (place, held);
                }
            }
            let before = taken.key.load(Ordering::Acquire);
            if before == key {
                return &taken.state;
            }
            // Where another thread was quicker, the set is looked through again.
            if taken.key.compare_exchange(before, key, Ordering::AcqRel, Ordering::Acquire).is_ok() {
                return &taken.state;
            }
        }
    }
}

impl Table {
    /// The state of a key, which is 0 at first.
    pub(super) fn state(&self, key: u64) -> u64 {
        self.place(key).load(Ordering::Acquire)
    }

    /// Replaces the state of a key by what `decide` makes of the one before, or leaves it where that is an error. Asks again
    /// where another thread was quicker.
    pub(super) fn replace<E>(&self, key: u64, decide: impl Fn(u64) -> Result<u64, E>) -> Result<(), E> {
        let place = self.place(key);
        let mut before = place.load(Ordering::Acquire);
        loop {
            let after = decide(before)?;
            match place.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return Ok(()),
                Err(now) => before = now,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::HashMap};

    use proptest::prelude::*;

    use super::*;

    /// Sets the state of a key, and gives the one before.
    fn swap(table: &Table, key: u64, state: u64) -> u64 {
        let before = Cell::new(0);
        let decide = |found| {
            before.set(found);
            Ok::<_, ()>(state)
        };
        table.replace(key, decide).unwrap();
        before.get()
    }

    proptest! {
        #[test]
        fn keys_that_have_room_keep_their_state(steps in prop::collection::vec((0u64..8, 1u64..99), 1..60)) {
            let table = Table::new(8);
            let mut expected = HashMap::new();
            for (key, state) in steps {
                prop_assert_eq!(swap(&table, key << 1, state), expected.insert(key, state).unwrap_or(0));
            }
        }

        #[test]
        fn no_key_ever_stands_lower_than_it_did(steps in prop::collection::vec((any::<u64>(), 1u64..9), 1..400)) {
            let table = Table::new(16);
            let mut least = HashMap::<u64, u64>::new();
            for (key, more) in steps {
                let key = (key % 64).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
                let expected = least.entry(key).or_default();
                prop_assert!(table.state(key) >= *expected);
                table.replace(key, |state| Ok::<_, ()>(state + more)).unwrap();
                *expected += more;
            }
        }

        #[test]
        fn no_number_of_keys_makes_it_grow(keys in prop::collection::vec(any::<u64>(), 200..400)) {
            let table = Table::new(64);
            for key in keys {
                swap(&table, key, 1);
                prop_assert!(table.keys() <= 64);
            }
        }
    }

    #[test]
    fn the_key_that_is_nearest_to_its_full_allowance_makes_way() {
        let table = Table::new(8);
        for key in 1..=8 {
            swap(&table, key << 1, 100 - key);
        }
        assert_eq!(swap(&table, 9 << 1, 1_000), 92, "with the state of the eighth");
        assert_eq!(swap(&table, 1 << 1, 99), 99, "the others stay");
        assert_eq!(swap(&table, 8 << 1, 1_000), 93, "it had to go, and the seventh goes for it");
    }

    #[test]
    fn threads_that_race_for_a_place_count_every_request() {
        let table = Table::new(8);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        table.replace(6, |count| Ok::<_, ()>(count + 1)).unwrap();
                    }
                });
            }
        });
        assert_eq!(table.state(6), 40_000);
    }
}
