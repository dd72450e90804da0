//! Moves connections to backends that joined or are back, if that is wanted: a route -> whose share is too small -> the idlest
//! connections of those who have too many are asked of all threads, and told to end, so many in a second.
//!
//! Only a quiet connection ends: its client waits for no answer, and nothing has moved for a while.

use std::{collections::HashSet, future::pending, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep_until, timeout},
};

use super::{
    going::Going,
    settings::{Rebalance, Settings},
    shares::{Load, Move},
};
use crate::{balance::Route, l4::metrics::Counters};

/// The least time between two looks.
const PULSE: Duration = Duration::from_millis(100);

/// The least and the longest time until the next look where nothing was quiet.
const PAUSE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Connections that were never quiet in this time, after the slow start of those who joined, stay where they are.
const PATIENCE: Duration = Duration::from_secs(600);

/// A thread that does not answer in this time has more important things to do.
const ANSWER: Duration = Duration::from_secs(1);

/// Orders that wait for a thread.
pub(super) const ORDERS: usize = 4;

/// What a thread is asked for.
#[derive(Debug)]
pub(super) enum Order {
    /// The idlest quiet connections of some backends, no more of each than the number beside it.
    Survey { from: Arc<[(u64, usize)]>, quiet: Duration, reply: oneshot::Sender<Vec<Idle>> },
    /// These shall end, if they are still quiet.
    Close { keys: Vec<usize>, quiet: Duration },
}

/// A quiet connection of a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Idle {
    pub(super) backend: u64,
    /// In the thread's list.
    pub(super) key: usize,
    pub(super) used: Instant,
}

/// Moves connections of one listener for as long as it is run.
pub(super) struct Rebalancer {
    pub(super) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) threads: Vec<mpsc::Sender<Order>>,
}

/// A move that is under way.
struct Moving {
    plan: Move,
    next: Instant,
    end: Instant,
}

impl Rebalancer {
    pub(super) async fn run(mut self) {
        let mut serving = HashSet::new();
        let mut moving = self.adopt(&mut serving, None);
        loop {
            let next = moving.as_ref().map(|moving| moving.next);
            tokio::select! {
                changed = self.route.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    moving = self.adopt(&mut serving, moving);
                }
                () = at(next) => {
                    if let Some(moving) = &mut moving {
                        self.step(moving).await;
                    }
                    moving.take_if(|moving| moving.next >= moving.end);
                }
            }
        }
    }

    /// Takes over a new route, and begins a move if somebody has joined.
    fn adopt(&mut self, serving: &mut HashSet<u64>, moving: Option<Moving>) -> Option<Moving> {
        let loads = loads(&self.route.borrow_and_update());
        let now: HashSet<u64> = loads.iter().filter(|load| load.share > 0.0).map(|load| load.id).collect();
        let mut joined: HashSet<u64> = now.difference(serving).copied().collect();
        let first = serving.is_empty();
        *serving = now;
        let rebalance = self.settings.load().rebalance?;
        if joined.is_empty() || first {
            return moving;
        }
        joined
            .extend(moving.iter().flat_map(|moving| moving.plan.joined()).filter(|id| serving.contains(id)));
        let start = Instant::now();
        let plan = Move::begin(&loads, joined);
        Some(Moving { plan, next: start, end: start + rebalance.slow_start + PATIENCE })
    }

    /// Closes what may be closed now.
    async fn step(&self, moving: &mut Moving) {
        let now = Instant::now();
        let Some(Rebalance { per_second, quiet, .. }) = self.settings.load().rebalance else {
            moving.next = moving.end;
            return;
        };
        let pulse = PULSE.max(Duration::from_secs(1) / per_second);
        // A little more than all: a third of three is one.
        let most = (pulse.as_secs_f64() * f64::from(per_second) + 1e-6) as usize;
        let wanted = moving.plan.next(&loads(&self.route.borrow()), most);
        let count = if wanted.is_empty() { 0 } else { self.close(wanted.into(), quiet).await };
        moving.plan.closed(count);
        moving.next = now + if count == 0 { quiet.clamp(PAUSE.0, PAUSE.1) } else { pulse };
    }

    /// Tells the idlest connections to end, and how many.
    async fn close(&self, from: Arc<[(u64, usize)]>, quiet: Duration) -> usize {
        let mut idle = self.survey(&from, quiet).await;
        idle.sort_unstable_by_key(|(_, idle)| idle.used);
        let mut orders = vec![Vec::new(); self.threads.len()];
        let mut count = 0;
        for (backend, most) in &*from {
            for (thread, idle) in idle.iter().filter(|(_, idle)| idle.backend == *backend).take(*most) {
                orders[*thread].push(idle.key);
                count += 1;
            }
        }
        for (thread, keys) in self.threads.iter().zip(orders).filter(|(_, keys)| !keys.is_empty()) {
            if let Err(error) = thread.try_send(Order::Close { keys, quiet }) {
                tracing::debug!(%error, "connections stay where they are");
            }
        }
        count
    }

    /// The idlest connections of all threads, each with its thread.
    async fn survey(&self, from: &Arc<[(u64, usize)]>, quiet: Duration) -> Vec<(usize, Idle)> {
        let ask = |thread: &mpsc::Sender<Order>| {
            let (reply, answer) = oneshot::channel();
            thread.try_send(Order::Survey { from: Arc::clone(from), quiet, reply }).ok().map(|()| answer)
        };
        let asked: Vec<_> = self.threads.iter().map(ask).collect();
        let mut idle = Vec::new();
        for (thread, answer) in asked.into_iter().enumerate() {
            if let Some(answer) = answer
                && let Ok(Ok(answer)) = timeout(ANSWER, answer).await
            {
                idle.extend(answer.into_iter().map(|idle| (thread, idle)));
            }
        }
        idle
    }
}

/// The idlest quiet connections of some backends, no more of each than the number beside it.
pub(super) fn survey<'a>(
    connections: impl Iterator<Item = (usize, &'a Going)>,
    from: &[(u64, usize)],
    quiet: Duration,
) -> Vec<Idle> {
    let now = Instant::now();
    let mut of_each: Vec<Vec<Idle>> = vec![Vec::new(); from.len()];
    for (key, going) in connections.filter(|(_, going)| going.is_quiet(now, quiet)) {
        if let Some(place) = from.iter().position(|(backend, _)| *backend == going.backend) {
            of_each[place].push(Idle { backend: going.backend, key, used: going.used.get() });
        }
    }
    for (idle, (_, most)) in of_each.iter_mut().zip(from) {
        idle.sort_unstable_by_key(|idle| idle.used);
        idle.truncate(*most);
    }
    of_each.concat()
}

fn loads(route: &Route<Counters>) -> Vec<Load> {
    let load = |(backend, share): (&Arc<_>, f64)| {
        let backend: &crate::balance::Backend<Counters> = backend;
        Load { id: backend.id, share, connections: backend.outstanding() }
    };
    route.shares().map(load).collect()
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => pending().await,
    }
}

#[cfg(test)]
#[path = "rebalance_tests.rs"]
mod tests;
