//! What a watch has told so far, by namespace and name. No client required.
//!
//! watch event -> parse into a fact -> store -> what changed. A relist replaces the contents at once when it is complete,
//! so that nobody ever sees half of a list and takes the rest for deleted.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use kube::{Resource, ResourceExt, runtime::watcher::Event};
use tokio::sync::watch;

/// Namespace and name; the namespace is empty for what has none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    pub fn of(object: &impl Resource) -> Self {
        let metadata = object.meta();
        Self::new(metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            return f.write_str(&self.name);
        }
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A fact that came, went or became another. Never both `None`, never equal.
#[derive(Debug)]
pub struct Change<T> {
    pub key: Key,
    pub before: Option<Arc<T>>,
    pub after: Option<Arc<T>>,
}

/// Facts by namespace and name.
pub struct Cache<T> {
    inner: RwLock<Inner<T>>,
    synced: watch::Sender<bool>,
}

type Facts<T> = HashMap<String, HashMap<String, Arc<T>>>;

struct Inner<T> {
    facts: Facts<T>,
    /// The list that is coming in, until it is complete.
    listing: Facts<T>,
}

impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self {
            inner: RwLock::new(Inner { facts: Facts::new(), listing: Facts::new() }),
            synced: watch::Sender::new(false),
        }
    }
}

impl<T: PartialEq> Cache<T> {
    /// Takes one event of a watch. An object that `parse` makes nothing of counts as absent.
    pub fn take<K: Resource>(&self, event: Event<K>, parse: impl Fn(K) -> Option<T>) -> Vec<Change<T>> {
        match event {
            Event::Init => {
                self.write().listing = Facts::new();
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = Key::of(&object);
                if let Some(fact) = parse(object) {
                    self.write().listing.entry(key.namespace).or_default().insert(key.name, Arc::new(fact));
                }
                Vec::new()
            }
            Event::InitDone => {
                let changes = self.replace();
                self.synced.send_replace(true);
                changes
            }
            Event::Apply(object) => {
                let key = Key::of(&object);
                self.set(key, parse(object)).into_iter().collect()
            }
            Event::Delete(object) => self.set(Key::of(&object), None).into_iter().collect(),
        }
    }

    /// Sets or removes one fact.
    pub fn set(&self, key: Key, fact: Option<T>) -> Option<Change<T>> {
        let mut inner = self.write();
        let after = fact.map(Arc::new);
        let before = match &after {
            Some(fact) => inner
                .facts
                .entry(key.namespace.clone())
                .or_default()
                .insert(key.name.clone(), Arc::clone(fact)),
            None => remove(&mut inner.facts, &key),
        };
        (before.as_deref() != after.as_deref()).then_some(Change { key, before, after })
    }

    fn replace(&self) -> Vec<Change<T>> {
        let mut inner = self.write();
        let after = std::mem::take(&mut inner.listing);
        let mut before = std::mem::replace(&mut inner.facts, after);
        let mut changes = Vec::new();
        for (namespace, facts) in &inner.facts {
            for (name, fact) in facts {
                let key = Key::new(namespace, name);
                let old = remove(&mut before, &key);
                if old.as_deref() != Some(&**fact) {
                    changes.push(Change { key, before: old, after: Some(Arc::clone(fact)) });
                }
            }
        }
        for (namespace, facts) in before {
            changes.extend(facts.into_iter().map(|(name, fact)| Change {
                key: Key::new(&namespace, name),
                before: Some(fact),
                after: None,
            }));
        }
        changes
    }
}

impl<T> Cache<T> {
    pub fn get(&self, key: &Key) -> Option<Arc<T>> {
        self.read().facts.get(&key.namespace)?.get(&key.name).cloned()
    }

    /// All facts of a namespace, in no order.
    pub fn in_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        self.read().facts.get(namespace).map(|facts| facts.values().cloned().collect()).unwrap_or_default()
    }

    /// All facts with their keys, in no order.
    pub fn all(&self) -> Vec<(Key, Arc<T>)> {
        let inner = self.read();
        inner
            .facts
            .iter()
            .flat_map(|(namespace, facts)| {
                facts.iter().map(move |(name, fact)| (Key::new(namespace, name), Arc::clone(fact)))
            })
            .collect()
    }

    /// Whether a first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Returns once a first list is complete.
    pub async fn synced(&self) {
        // The sender lives as long as `self`, so this cannot fail.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    // A panic while the lock was held leaves plain maps behind, which are still whole.
    fn read(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

fn remove<T>(facts: &mut Facts<T>, key: &Key) -> Option<Arc<T>> {
    let of_namespace = facts.get_mut(&key.namespace)?;
    let removed = of_namespace.remove(&key.name);
    if of_namespace.is_empty() {
        facts.remove(&key.namespace);
    }
    removed
}

/// Drops what no fact needs before an event is held anywhere.
pub(super) fn slim<K: Resource>(event: Event<K>) -> Event<K> {
    event.modify(|object| object.managed_fields_mut().clear())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn object(name: &str, value: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some(name.to_owned());
        map.metadata.namespace = Some("ns".to_owned());
        map.data = Some([("value".to_owned(), value.to_owned())].into());
        map
    }

    fn parse(map: ConfigMap) -> Option<String> {
        map.data?.remove("value")
    }

    #[test]
    fn a_relist_replaces_everything_at_once_and_tells_only_the_differences() {
        let cache = Cache::default();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "1")),
            Event::InitApply(object("c", "1")),
        ] {
            assert!(cache.take(event, parse).is_empty());
        }
        assert!(!cache.is_synced() && cache.in_namespace("ns").is_empty());
        assert_eq!(cache.take(Event::InitDone, parse).len(), 3);
        assert!(cache.is_synced());

        for event in [Event::Init, Event::InitApply(object("b", "2")), Event::InitApply(object("c", "1"))] {
            cache.take(event, parse);
        }
        assert_eq!(cache.in_namespace("ns").len(), 3, "the old list serves until the new one is complete");
        let mut changed: Vec<(String, Option<String>)> = cache
            .take(Event::InitDone, parse)
            .into_iter()
            .map(|change| (change.key.name, change.after.as_deref().cloned()))
            .collect();
        changed.sort();
        assert_eq!(changed, [("a".to_owned(), None), ("b".to_owned(), Some("2".to_owned()))]);
    }

    #[test]
    fn an_unchanged_fact_is_no_change() {
        let cache = Cache::default();
        assert_eq!(cache.take(Event::Apply(object("a", "1")), parse).len(), 1);
        assert!(cache.take(Event::Apply(object("a", "1")), parse).is_empty());
        assert_eq!(cache.take(Event::Delete(object("a", "1")), parse).len(), 1);
        assert!(cache.take(Event::Delete(object("a", "1")), parse).is_empty());
        assert!(cache.all().is_empty());
    }
}
