//! The sets of a site's sources -> one set, published anew whenever one of them changes.

use std::sync::Arc;

use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Backends, Followed};
use crate::balance::{BackendSet, Endpoint};

/// Merges for as long as someone receives.
pub(super) fn publish(fixed: Vec<BackendSet>, followed: Vec<Arc<Followed>>, tasks: &TaskTracker) -> Backends {
    let source = |followed: &Arc<Followed>| (Arc::clone(&followed.host), followed.backends.clone());
    let mut sources: Vec<Source> = followed.iter().map(source).collect();
    let (sender, backends) = watch::channel(Arc::new(merge(&fixed, &mut sources)));
    if sources.is_empty() {
        return backends;
    }
    tasks.spawn(async move {
        // Holding them keeps their tasks alive.
        let _followed = followed;
        loop {
            let stopped = {
                let changes = sources.iter_mut().map(|(_, source)| Box::pin(source.changed()));
                tokio::select! {
                    (change, _, _) = select_all(changes) => change.is_err(),
                    () = sender.closed() => true,
                }
            };
            if stopped {
                return;
            }
            let merged = merge(&fixed, &mut sources);
            sender.send_if_modified(|current| {
                let differs = **current != merged;
                if differs {
                    *current = Arc::new(merged);
                }
                differs
            });
        }
    });
    backends
}

/// A source's name, and its sets.
type Source = (Arc<str>, Backends);

fn merge(fixed: &[BackendSet], sources: &mut [Source]) -> BackendSet {
    let mut merged = BackendSet { answered: true, ..BackendSet::default() };
    for set in fixed {
        add(&mut merged, None, set);
    }
    for (host, source) in sources {
        add(&mut merged, Some(host), &source.borrow_and_update());
    }
    normalize(&mut merged.endpoints);
    merged
}

fn add(merged: &mut BackendSet, host: Option<&Arc<str>>, set: &BackendSet) {
    let named = |endpoint: &Endpoint| Endpoint { host: host.cloned(), ..endpoint.clone() };
    merged.endpoints.extend(set.endpoints.iter().map(named));
    merged.unavailable.extend_from_slice(&set.unavailable);
    merged.answered &= set.answered;
}

/// Sorts, and keeps each address once: as serving where one source says so and another that it terminates, as happens
/// while an endpoint moves between slices.
pub(super) fn normalize(endpoints: &mut Vec<Endpoint>) {
    endpoints.sort_unstable();
    endpoints.dedup_by(|next, kept| next.address == kept.address);
}
