//! Backends that are alternatives to each other, with their weights, and the choices among them. Pure: randomness, loads and
//! who is eligible are arguments. Nothing allocates.

use std::{
    cmp::Ordering,
    sync::atomic::{self, AtomicUsize},
};

use super::{method::Method, ring::Ring};

/// Draws by weight before the eligible ones are looked for in their order.
const DRAWS: usize = 4;

/// The golden ratio as a fraction of 2^64: its multiples are spread evenly, whatever the weights.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

/// At least one backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tier {
    members: Vec<Share>,
    /// Sums of the weights up to each member; empty where all weights are equal.
    sums: Vec<usize>,
    ring: Option<Ring>,
}

/// A backend's part of a tier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    /// Index into the route's backends.
    pub(super) backend: usize,
    /// At least 1.
    pub(super) weight: u32,
    /// The same in every sidecar.
    pub(super) identity: u64,
}

/// What a choice is made from. `eligible` and `load` are asked about indices into the route's backends.
pub(super) struct Choice<'a, E, L, R> {
    pub(super) method: Method,
    pub(super) hash: Option<u64>,
    pub(super) turns: &'a AtomicUsize,
    pub(super) eligible: E,
    /// Lower is better.
    pub(super) load: L,
    /// Gives a number below its argument.
    pub(super) random: R,
}

impl Tier {
    /// None without members.
    pub(super) fn new(members: Vec<Share>, method: Method) -> Option<Self> {
        let first = members.first()?.weight;
        let mut sums = Vec::new();
        if members.iter().any(|member| member.weight != first) {
            sums.extend(members.iter().scan(0, |sum, member| {
                *sum += member.weight as usize;
                Some(*sum)
            }));
        }
        let ring = (method == Method::Hash).then(|| {
            Ring::new(&members.iter().map(|member| (member.identity, member.weight)).collect::<Vec<_>>())
        });
        Some(Self { members, sums, ring })
    }

    pub(super) fn backends(&self) -> impl Iterator<Item = usize> {
        self.members.iter().map(|member| member.backend)
    }

    /// The backends, and the part that each has of the tier's weight.
    pub(super) fn shares(&self) -> impl Iterator<Item = (usize, f64)> {
        let sum: f64 = self.members.iter().map(|member| f64::from(member.weight)).sum();
        self.members.iter().map(move |member| (member.backend, f64::from(member.weight) / sum))
    }

    /// An eligible backend, or none if there is none. The cost does not grow with the tier while most are eligible, but for
    /// a binary search where weights differ, and for the least of all.
    pub(super) fn pick<E, L, R>(&self, choice: &mut Choice<'_, E, L, R>) -> Option<usize>
    where
        E: Fn(usize) -> bool,
        L: Fn(usize) -> u64,
        R: FnMut(usize) -> usize,
    {
        let position = match (choice.method, choice.hash) {
            (Method::Hash, Some(hash)) => self.of_hash(hash, choice),
            (Method::LeastOfTwo | Method::PeakEwma | Method::Hash, _) => self.of_two(choice),
            (Method::LeastOfAll, _) => self.of_all(choice),
            (Method::RoundRobin, _) => self.in_turn(choice),
            (Method::Random, _) => self.draw(None, choice),
        };
        position.map(|position| self.members[position].backend)
    }

    fn of_hash<E: Fn(usize) -> bool, L, R>(&self, hash: u64, choice: &Choice<'_, E, L, R>) -> Option<usize> {
        let eligible = |position: usize| (choice.eligible)(self.members[position].backend);
        let near = self.ring.as_ref().and_then(|ring| ring.pick(hash, eligible));
        near.or_else(|| self.from((hash % self.members.len() as u64) as usize, None, choice))
    }

    /// The power of two choices: two drawn by weight, then the one with less load for its weight, the first one if they are
    /// equal.
    fn of_two<E: Fn(usize) -> bool, L: Fn(usize) -> u64, R: FnMut(usize) -> usize>(
        &self,
        choice: &mut Choice<'_, E, L, R>,
    ) -> Option<usize> {
        let first = self.draw(None, choice)?;
        let Some(second) = self.draw(Some(first), choice) else { return Some(first) };
        let (a, b) = (self.members[first], self.members[second]);
        let load =
            |one: Share, other: Share| u128::from((choice.load)(one.backend)) * u128::from(other.weight);
        Some(if load(a, b) <= load(b, a) { first } else { second })
    }

    /// The one with the least load for its weight, any of them if several have.
    fn of_all<E: Fn(usize) -> bool, L: Fn(usize) -> u64, R: FnMut(usize) -> usize>(
        &self,
        choice: &mut Choice<'_, E, L, R>,
    ) -> Option<usize> {
        let mut least: Option<(usize, u64)> = None;
        let mut equals = 0;
        for (position, member) in self.members.iter().enumerate() {
            if !(choice.eligible)(member.backend) {
                continue;
            }
            let load = (choice.load)(member.backend);
            // What it would be with one more, so that without any the heaviest comes first.
            let order = least.map_or(Ordering::Less, |(other, others)| {
                let own = u128::from(load + 1) * u128::from(self.members[other].weight);
                own.cmp(&(u128::from(others + 1) * u128::from(member.weight)))
            });
            match order {
                Ordering::Less => equals = 1,
                Ordering::Equal => equals += 1,
                Ordering::Greater => continue,
            }
            // The last of several that are equal is taken as often as each of them should be.
            if order == Ordering::Less || order == Ordering::Equal && (choice.random)(equals) == 0 {
                least = Some((position, load));
            }
        }
        least.map(|(position, _)| position)
    }

    fn in_turn<E: Fn(usize) -> bool, L, R>(&self, choice: &Choice<'_, E, L, R>) -> Option<usize> {
        let turn = choice.turns.fetch_add(1, atomic::Ordering::Relaxed);
        let start = match self.sums.last() {
            None => turn % self.members.len(),
            Some(&sum) => {
                let fraction = u128::from((turn as u64).wrapping_mul(SPREAD));
                self.holder(((fraction * sum as u128) >> 64) as usize)
            }
        };
        self.from(start, None, choice)
    }

    /// One drawn by weight, other than `except`.
    fn draw<E: Fn(usize) -> bool, L, R: FnMut(usize) -> usize>(
        &self,
        except: Option<usize>,
        choice: &mut Choice<'_, E, L, R>,
    ) -> Option<usize> {
        let count = self.members.len();
        if except.is_some() && count == 1 {
            return None;
        }
        for _ in 0..DRAWS {
            let position = match (self.sums.last(), except) {
                (None, None) => (choice.random)(count),
                (None, Some(except)) => (except + 1 + (choice.random)(count - 1)) % count,
                (Some(&sum), _) => self.holder((choice.random)(sum)),
            };
            if Some(position) != except && (choice.eligible)(self.members[position].backend) {
                return Some(position);
            }
        }
        self.from((choice.random)(count), except, choice)
    }

    /// The first eligible one from a position on.
    fn from<E: Fn(usize) -> bool, L, R>(
        &self,
        start: usize,
        except: Option<usize>,
        choice: &Choice<'_, E, L, R>,
    ) -> Option<usize> {
        (start..self.members.len())
            .chain(0..start)
            .find(|&position| Some(position) != except && (choice.eligible)(self.members[position].backend))
    }

    /// Whose part of the sum of weights a number below it falls into.
    fn holder(&self, number: usize) -> usize {
        self.sums.partition_point(|sum| *sum <= number).min(self.members.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ALL: [Method; 6] = [
        Method::LeastOfTwo,
        Method::LeastOfAll,
        Method::PeakEwma,
        Method::RoundRobin,
        Method::Random,
        Method::Hash,
    ];

    fn tier(weights: &[u32], method: Method) -> Tier {
        let shares = weights.iter().zip(0..).map(|(&weight, backend)| Share {
            backend,
            weight,
            identity: crate::balance::hash::hash(format!("10.0.0.{backend}:80").as_bytes()),
        });
        Tier::new(shares.collect(), method).unwrap()
    }

    /// Picks `count` times, each with another hash, and counts the hits.
    fn hits(
        weights: &[u32],
        method: Method,
        count: u64,
        eligible: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> u64,
    ) -> Vec<u64> {
        let (tier, turns) = (tier(weights, method), AtomicUsize::new(0));
        let mut random = fastrand::Rng::with_seed(7);
        let mut hits = vec![0; weights.len()];
        for key in 0..count {
            let picked = tier.pick(&mut Choice {
                method,
                hash: Some(crate::balance::hash::hash(&key.to_le_bytes())),
                turns: &turns,
                eligible: &eligible,
                load: &load,
                random: |below| random.usize(..below),
            });
            if let Some(picked) = picked {
                hits[picked] += 1;
            }
        }
        hits
    }

    #[test]
    fn without_load_each_gets_its_share_whatever_the_choice() {
        for method in ALL.into_iter().filter(|method| *method != Method::LeastOfAll) {
            for weights in [&[1, 1, 1, 1][..], &[100, 100], &[3, 1], &[1, 2, 4, 1], &[7]] {
                let sum: u32 = weights.iter().sum();
                let count = 4_000 * u64::from(sum.min(40));
                let slack = if method == Method::Hash { 35 } else { 10 };
                for (hits, weight) in hits(weights, method, count, |_| true, |_| 0).iter().zip(weights) {
                    let fair = count * u64::from(*weight) / u64::from(sum);
                    let range = fair * (100 - slack) / 100..=fair * (100 + slack) / 100;
                    assert!(range.contains(hits), "{method:?} {weights:?}: {hits} for {fair}");
                }
            }
        }
    }

    #[test]
    fn a_round_is_a_round_and_a_weighted_one_is_even_in_every_stretch() {
        assert_eq!(hits(&[1, 1, 1], Method::RoundRobin, 3, |_| true, |_| 0), [1, 1, 1]);
        for stretch in [4, 8, 40, 100] {
            let hits = hits(&[3, 1], Method::RoundRobin, stretch, |_| true, |_| 0);
            assert!(hits[0].abs_diff(stretch * 3 / 4) <= 1, "{hits:?} of {stretch}");
        }
    }

    #[test]
    fn under_load_requests_follow_the_weights() {
        for (method, slack) in [(Method::LeastOfTwo, 10), (Method::LeastOfAll, 1)] {
            let (tier, turns) = (tier(&[3, 1, 1], method), AtomicUsize::new(0));
            let mut random = fastrand::Rng::with_seed(3);
            let mut outstanding = [0u64; 3];
            for _ in 0..500 {
                let picked = tier.pick(&mut Choice {
                    method,
                    hash: None,
                    turns: &turns,
                    eligible: |_| true,
                    load: |index: usize| outstanding[index],
                    random: |below| random.usize(..below),
                });
                outstanding[picked.unwrap()] += 1;
            }
            for (outstanding, fair) in outstanding.iter().zip([300, 100, 100]) {
                assert!(outstanding.abs_diff(fair) <= slack, "{method:?}: {outstanding} for {fair}");
            }
        }
    }

    #[test]
    fn among_those_with_the_least_load_each_gets_its_turn() {
        let hits = hits(&[1, 1, 1, 1], Method::LeastOfAll, 4_000, |_| true, |index| u64::from(index == 3));
        assert!(hits[..3].iter().all(|hits| (1_000..1_700).contains(hits)) && hits[3] == 0, "{hits:?}");
    }

    proptest! {
        #[test]
        fn of_two_the_busier_for_its_weight_is_never_picked(a in 0u64..50, b in 0u64..50, v in 1u32..9, w in 1u32..9) {
            let hits = hits(&[v, w], Method::LeastOfTwo, 20, |_| true, |index| [a, b][index]);
            let (a, b) = (a * u64::from(w), b * u64::from(v));
            if a < b { prop_assert_eq!(hits[1], 0); }
            if b < a { prop_assert_eq!(hits[0], 0); }
        }

        #[test]
        fn the_busiest_of_many_is_never_picked(mut loads in prop::collection::vec(0u64..50, 2..20)) {
            loads[0] = 100;
            for method in [Method::LeastOfTwo, Method::LeastOfAll, Method::PeakEwma] {
                let hits = hits(&vec![1; loads.len()], method, 50, |_| true, |index| loads[index]);
                prop_assert_eq!(hits[0], 0);
            }
        }

        #[test]
        fn what_is_picked_is_eligible_and_something_is_picked(
            members in prop::collection::vec((1u32..1_000, any::<bool>()), 1..20),
        ) {
            let weights: Vec<_> = members.iter().map(|(weight, _)| *weight).collect();
            let any = members.iter().any(|(_, eligible)| *eligible);
            for method in ALL {
                let hits = hits(&weights, method, 10, |index| members[index].1, |index| index as u64);
                prop_assert_eq!(hits.iter().sum::<u64>(), if any { 10 } else { 0 });
                prop_assert!(hits.iter().zip(&members).all(|(hits, (_, eligible))| *hits == 0 || *eligible));
            }
        }
    }
}
