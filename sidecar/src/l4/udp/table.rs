//! The sessions of one thread, by client and by how long each has been silent. Pure: the time is an argument. Every step takes
//! the same time, however many there are.
//!
//! The sessions are also a list, from the one that was silent for the longest time to the one that was used last.

use std::{collections::HashMap, hash::Hash};

use slab::Slab;
use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Table<K, V> {
    /// By a hash that nobody outside can foresee: clients choose their addresses.
    by_key: HashMap<K, usize>,
    entries: Slab<Entry<K, V>>,
    silent: Option<usize>,
    latest: Option<usize>,
}

#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    value: V,
    used: Instant,
    /// The next one that is more silent.
    before: Option<usize>,
    after: Option<usize>,
}

impl<K, V> Default for Table<K, V> {
    fn default() -> Self {
        Self { by_key: HashMap::new(), entries: Slab::new(), silent: None, latest: None }
    }
}

impl<K: Eq + Hash + Copy, V> Table<K, V> {
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The place of a key; it stays the same until the key is removed.
    pub(super) fn find(&self, key: &K) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    pub(super) fn get_mut(&mut self, place: usize) -> Option<&mut V> {
        self.entries.get_mut(place).map(|entry| &mut entry.value)
    }

    /// Adds a key, used now, in place of what it stood for before.
    pub(super) fn insert(&mut self, key: K, value: V, now: Instant) -> usize {
        if let Some(place) = self.find(&key) {
            self.remove(place);
        }
        let place = self.entries.insert(Entry { key, value, used: now, before: None, after: None });
        self.by_key.insert(key, place);
        self.append(place);
        place
    }

    /// It is used now, and not before any other was.
    pub(super) fn touch(&mut self, place: usize, now: Instant) {
        let Some(entry) = self.entries.get_mut(place) else { return };
        entry.used = now;
        if self.latest != Some(place) {
            self.unlink(place);
            self.append(place);
        }
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<V> {
        if !self.entries.contains(place) {
            return None;
        }
        self.unlink(place);
        let entry = self.entries.remove(place);
        self.by_key.remove(&entry.key);
        if self.entries.is_empty() {
            // What a flood has brought is given back.
            *self = Self::default();
        }
        Some(entry.value)
    }

    /// The one that was silent for the longest time: its place, and when it was used.
    pub(super) fn most_silent(&self) -> Option<(usize, Instant)> {
        self.silent.map(|place| (place, self.entries[place].used))
    }

    fn append(&mut self, place: usize) {
        let before = self.latest.replace(place);
        match before {
            Some(before) => self.entries[before].after = Some(place),
            None => self.silent = Some(place),
        }
        let entry = &mut self.entries[place];
        (entry.before, entry.after) = (before, None);
    }

    fn unlink(&mut self, place: usize) {
        let (before, after) = (self.entries[place].before, self.entries[place].after);
        match before {
            Some(before) => self.entries[before].after = after,
            None => self.silent = after,
        }
        match after {
            Some(after) => self.entries[after].before = before,
            None => self.latest = before,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Insert(u8),
        Touch(u8),
        Remove(u8),
        RemoveMostSilent,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0u8..12).prop_map(Step::Insert),
            4 => (0u8..12).prop_map(Step::Touch),
            1 => (0u8..12).prop_map(Step::Remove),
            1 => Just(Step::RemoveMostSilent),
        ]
    }

    proptest! {
        /// As a list does that is searched from end to end.
        #[test]
        fn the_most_silent_one_is_always_known(steps in prop::collection::vec(step(), 0..200)) {
            let start = Instant::now();
            let mut table = Table::default();
            let mut model: Vec<(u8, usize, Instant)> = Vec::new();
            for (count, step) in steps.into_iter().enumerate() {
                let now = start + Duration::from_millis(count as u64);
                match step {
                    Step::Insert(key) => {
                        table.insert(key, count, now);
                        model.retain(|(other, ..)| *other != key);
                        model.push((key, count, now));
                    }
                    Step::Touch(key) => {
                        let place = table.find(&key);
                        let known = model.iter().position(|(other, ..)| *other == key);
                        prop_assert_eq!(place.is_some(), known.is_some());
                        if let (Some(place), Some(known)) = (place, known) {
                            table.touch(place, now);
                            let (_, value, _) = model.remove(known);
                            prop_assert_eq!(table.get_mut(place).copied(), Some(value));
                            model.push((key, value, now));
                        }
                    }
                    Step::Remove(key) => {
                        let removed = table.find(&key).and_then(|place| table.remove(place));
                        let known = model.iter().position(|(other, ..)| *other == key);
                        prop_assert_eq!(removed, known.map(|known| model.remove(known).1));
                    }
                    Step::RemoveMostSilent => {
                        let removed = table.most_silent().and_then(|(place, _)| table.remove(place));
                        let known = (!model.is_empty()).then(|| model.remove(0).1);
                        prop_assert_eq!(removed, known);
                    }
                }
                prop_assert_eq!(table.most_silent().map(|(_, used)| used), model.first().map(|(.., used)| *used));
                prop_assert_eq!((0..12).filter(|key| table.find(key).is_some()).count(), model.len());
                prop_assert_eq!(table.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn a_place_that_is_gone_does_nothing() {
        let mut table = Table::default();
        let now = Instant::now();
        let place = table.insert(1, "one", now);
        assert_eq!(table.remove(place), Some("one"));
        table.touch(place, now);
        assert_eq!((table.remove(place), table.most_silent()), (None, None));
    }
}
