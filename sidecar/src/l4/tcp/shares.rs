//! Whose connections are to move to backends that joined: loads and shares -> how many to close, and where. Pure.
//!
//! All together are closed no more than what those who joined should have: clients need not come back at once, and a backend
//! that others have left alone is not to cost every connection.

use std::collections::HashSet;

/// A backend as the plan sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Load {
    pub(super) id: u64,
    /// The part of all connections that it should have.
    pub(super) share: f64,
    pub(super) connections: usize,
}

/// Backends that joined, and what was done for them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Move {
    joined: HashSet<u64>,
    /// Connections when they joined, of all and of those.
    total: usize,
    had: usize,
    closed: usize,
}

impl Move {
    pub(super) fn begin(loads: &[Load], joined: HashSet<u64>) -> Self {
        let had = loads.iter().filter(|load| joined.contains(&load.id)).map(|load| load.connections).sum();
        Self { joined, total: total(loads), had, closed: 0 }
    }

    /// Backends that are to have more connections, for a move that begins anew.
    pub(super) fn joined(&self) -> &HashSet<u64> {
        &self.joined
    }

    /// Connections to close at each of some backends, `most` in all. Those who are furthest beyond their share come first.
    pub(super) fn next(&self, loads: &[Load], most: usize) -> Vec<(u64, usize)> {
        let total = total(loads).max(self.total);
        let (joined, others): (Vec<&Load>, Vec<&Load>) =
            loads.iter().partition(|load| self.joined.contains(&load.id));
        let due: usize = joined.iter().map(|load| load.at_least(total)).sum();
        let missing = joined.iter().map(|load| load.at_least(total).saturating_sub(load.connections)).sum();
        let left = most.min(missing).min(due.saturating_sub(self.had + self.closed));
        let mut beyond: Vec<(u64, usize)> = others
            .iter()
            .map(|load| (load.id, load.connections.saturating_sub(load.at_most(total))))
            .filter(|(_, count)| *count > 0)
            .collect();
        let mut taken: Vec<(u64, usize)> = beyond.iter().map(|(id, _)| (*id, 0)).collect();
        for _ in 0..left {
            let Some(place) = (0..beyond.len()).max_by_key(|place| beyond[*place].1) else { break };
            if beyond[place].1 == 0 {
                break;
            }
            beyond[place].1 -= 1;
            taken[place].1 += 1;
        }
        taken.retain(|(_, count)| *count > 0);
        taken
    }

    pub(super) fn closed(&mut self, count: usize) {
        self.closed += count;
    }
}

impl Load {
    fn at_least(&self, total: usize) -> usize {
        (self.share * total as f64 + ROUNDING).floor() as usize
    }

    fn at_most(&self, total: usize) -> usize {
        (self.share * total as f64 - ROUNDING).ceil().max(0.0) as usize
    }
}

/// Shares are fractions, and 1 / 3 of 3 is 1.
const ROUNDING: f64 = 1e-6;

fn total(loads: &[Load]) -> usize {
    loads.iter().map(|load| load.connections).sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn loads(each: &[(u32, usize)]) -> Vec<Load> {
        let sum: u32 = each.iter().map(|(weight, _)| weight).sum();
        let load = |(id, (weight, connections)): (usize, &(u32, usize))| Load {
            id: id as u64,
            share: f64::from(*weight) / f64::from(sum.max(1)),
            connections: *connections,
        };
        each.iter().enumerate().map(load).collect()
    }

    #[test]
    fn those_with_too_many_give_to_those_who_joined() {
        for (each, joined, most, expected) in [
            (&[(1, 10), (1, 10), (1, 0)][..], &[2][..], 100, &[(0, 3), (1, 3)][..]),
            (&[(1, 10), (1, 10), (1, 0)], &[2], 1, &[(1, 1)]),
            (&[(1, 30), (1, 6), (1, 0)], &[2], 5, &[(0, 5)]),
            (&[(3, 30), (1, 10), (4, 0)], &[2], 100, &[(0, 15), (1, 5)]),
            // Terminating ones have no share, and give all that is missing.
            (&[(0, 4), (1, 4), (1, 0)], &[2], 100, &[(0, 4)]),
            // Who has enough needs nothing, and who joins an idle listener neither.
            (&[(1, 10), (1, 4), (1, 7)], &[2], 100, &[]),
            (&[(1, 0), (1, 0)], &[0, 1], 100, &[]),
            // Less than one is none.
            (&[(1, 1), (1, 1), (1, 0)], &[2], 100, &[]),
        ] {
            let loads = loads(each);
            let plan = Move::begin(&loads, joined.iter().copied().collect());
            assert_eq!(plan.next(&loads, most), expected, "{each:?}");
        }
    }

    #[test]
    fn clients_that_do_not_come_back_cost_no_more_than_was_due() {
        let mut now = loads(&[(1, 10), (1, 10), (1, 0)]);
        let mut plan = Move::begin(&now, [2].into());
        let mut closed = 0;
        for _ in 0..100 {
            for (id, count) in plan.next(&now, 2) {
                now[id as usize].connections -= count;
                plan.closed(count);
                closed += count;
            }
        }
        assert_eq!(closed, 6);
        assert_eq!(now.iter().map(|load| load.connections).collect::<Vec<_>>(), [7, 7, 0]);
    }

    proptest! {
        /// Each that is closed comes back to whoever has the fewest for its weight.
        #[test]
        fn in_the_end_each_has_its_share_and_nobody_was_closed_in_vain(
            before in prop::collection::vec((1u32..5, 0usize..60), 1..6), joining in prop::collection::vec(1u32..5, 1..3), most in 1usize..20,
        ) {
            let joined: HashSet<u64> = (before.len()..before.len() + joining.len()).map(|id| id as u64).collect();
            let each: Vec<_> = before.iter().copied().chain(joining.iter().map(|weight| (*weight, 0))).collect();
            let mut now = loads(&each);
            let mut plan = Move::begin(&now, joined.clone());
            let total = total(&now);
            let due: usize = now.iter().filter(|load| joined.contains(&load.id)).map(|load| load.at_least(total)).sum();
            let mut closed = 0;
            loop {
                let next = plan.next(&now, most);
                let count: usize = next.iter().map(|(_, count)| count).sum();
                prop_assert!(count <= most);
                if count == 0 { break; }
                for (id, count) in next {
                    prop_assert!(!joined.contains(&id));
                    now[id as usize].connections -= count;
                    prop_assert!(now[id as usize].connections >= now[id as usize].at_most(total));
                }
                plan.closed(count);
                closed += count;
                for _ in 0..count {
                    let least = |load: &&mut Load| ((load.connections + 1) as f64 / load.share * 1e6) as u64;
                    if let Some(load) = now.iter_mut().min_by_key(least) { load.connections += 1; }
                }
            }
            prop_assert!(closed <= due);
            prop_assert_eq!(super::total(&now), total);
        }
    }
}
