//! The sets of a site's sources -> one set, published anew whenever one of them changes.

use std::sync::Arc;

use futures::future::select_all;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{Backends, Followed};
use crate::balance::{BackendSet, Endpoint};

/// Merges for as long as someone receives. Followed sources come with their weight.
pub(super) fn publish(
    fixed: Vec<BackendSet>,
    followed: Vec<(Arc<Followed>, u32)>,
    tasks: &TaskTracker,
) -> Backends {
    let source = |(followed, weight): &(Arc<Followed>, u32)| Source {
        host: Arc::clone(&followed.host),
        weight: *weight,
        backends: followed.backends.clone(),
    };
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
                let changes = sources.iter_mut().map(|source| Box::pin(source.backends.changed()));
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

/// A source as one site names it.
struct Source {
    host: Arc<str>,
    weight: u32,
    backends: Backends,
}

fn merge(fixed: &[BackendSet], sources: &mut [Source]) -> BackendSet {
    let mut merged = BackendSet { answered: true, ..BackendSet::default() };
    for set in fixed {
        add(&mut merged, set, Endpoint::clone);
    }
    for Source { host, weight, backends } in sources {
        let named = |endpoint: &Endpoint| Endpoint {
            host: Some(Arc::clone(host)),
            // Those of DNS records count among themselves.
            weight: endpoint.weight.saturating_mul(*weight),
            ..endpoint.clone()
        };
        add(&mut merged, &backends.borrow_and_update(), named);
    }
    normalize(&mut merged.endpoints);
    merged
}

fn add(merged: &mut BackendSet, set: &BackendSet, named: impl Fn(&Endpoint) -> Endpoint) {
    merged.endpoints.extend(set.endpoints.iter().map(named));
    merged.unavailable.extend_from_slice(&set.unavailable);
    merged.answered &= set.answered;
}

/// Sorts, and keeps each address once: as serving where one source says so and another that it terminates, as happens
/// while an endpoint moves between slices; and with the largest of its weights.
pub(super) fn normalize(endpoints: &mut Vec<Endpoint>) {
    endpoints.sort_unstable();
    endpoints.dedup_by(|next, kept| {
        let same = next.address == kept.address;
        if same {
            kept.weight = kept.weight.max(next.weight);
        }
        same
    });
}
