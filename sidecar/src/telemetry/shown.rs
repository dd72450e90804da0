//! Which listeners a scrape shows: those that live, one of each name.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// What is shown of a listener.
pub(crate) trait Named {
    fn name(&self) -> &str;
}

/// The listeners of one kind.
pub(crate) struct Shown<L>(Mutex<Vec<Weak<L>>>);

impl<L> Default for Shown<L> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<L: Named> Shown<L> {
    /// Shows the listener as long as it lives and no other of its name was added after it: one that still drains is hidden,
    /// and one that was replaced in vain is shown again.
    pub(crate) fn add(&self, listener: &Arc<L>) {
        let mut listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|other| other.strong_count() > 0);
        listeners.push(Arc::downgrade(listener));
    }

    pub(crate) fn all(&self) -> Vec<Arc<L>> {
        let listeners = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let live: Vec<_> = listeners.iter().filter_map(Weak::upgrade).collect();
        let last = |index: usize| live[index + 1..].iter().all(|later| later.name() != live[index].name());
        (0..live.len()).filter(|&index| last(index)).map(|index| Arc::clone(&live[index])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Named for &'static str {
        fn name(&self) -> &str {
            self
        }
    }

    #[test]
    fn the_last_live_listener_of_a_name_is_shown() {
        let shown = Shown::default();
        let shows = |expected: &[&Arc<&'static str>]| {
            let all = shown.all();
            all.len() == expected.len() && all.iter().zip(expected).all(|(a, b)| Arc::ptr_eq(a, b))
        };
        let (old, other, new) = (Arc::new("web"), Arc::new("other"), Arc::new("web"));
        shown.add(&old);
        shown.add(&other);
        assert!(shows(&[&old, &other]));
        shown.add(&new);
        assert!(shows(&[&other, &new]), "the old one drains");
        drop(new);
        assert!(shows(&[&old, &other]), "the new one came to nothing");
    }
}
