//! Consistent hashing: each backend has points on a ring, as many as its weight asks for, and a hash belongs to the next
//! point. A backend that comes or goes moves only the keys that it gets or leaves. Pure.

use super::hash::mix;

/// Points of the heaviest backend: shares are even to about a tenth.
const POINTS: u64 = 160;

/// Points of all backends, about: with more than 1600 of them each gets fewer.
const MOST: u64 = 1 << 18;

/// Points that are looked at for one that is eligible, before the others are looked at in their order.
const LOOKS: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    /// Place on the ring, and position of the backend.
    points: Vec<(u32, u32)>,
}

impl Ring {
    /// Backends by hash of their address, which places them alike in every sidecar, and weight above 0.
    pub(super) fn new(backends: &[(u64, u32)]) -> Self {
        let heaviest = backends.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or(1).max(1);
        let mut most = POINTS;
        while most > 1 && most * backends.len() as u64 > MOST {
            most /= 2;
        }
        let mut points = Vec::new();
        for (position, &(identity, weight)) in (0u32..).zip(backends) {
            let count = (most * u64::from(weight)).div_ceil(heaviest);
            points.extend((0..count).map(|point| ((mix(identity ^ mix(point + 1)) >> 32) as u32, position)));
        }
        points.sort_unstable();
        Self { points }
    }

    /// The first eligible backend from the hash on, of the nearest points at most.
    pub(super) fn pick(&self, hash: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let place = (mix(hash) >> 32) as u32;
        let start = self.points.partition_point(|(point, _)| *point < place);
        let around = self.points[start..].iter().chain(&self.points[..start]);
        around.take(LOOKS).map(|(_, position)| *position as usize).find(|position| eligible(*position))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::balance::hash::hash;

    fn backends(numbers: impl IntoIterator<Item = u32>) -> Vec<(u64, u32)> {
        numbers.into_iter().map(|number| (hash(format!("10.0.0.{number}:80").as_bytes()), 1)).collect()
    }

    fn keys(count: u64) -> impl Iterator<Item = u64> {
        (0..count).map(|key| hash(format!("key {key}").as_bytes()))
    }

    #[test]
    fn keys_are_spread_by_weight() {
        let mut backends = backends(0..5);
        backends[4].1 = 3;
        let ring = Ring::new(&backends);
        let mut hits = [0; 5];
        keys(70_000).for_each(|key| hits[ring.pick(key, |_| true).unwrap()] += 1);
        for (hits, weight) in hits.iter().zip([1, 1, 1, 1, 3]) {
            assert!((7_000 * weight..=13_000 * weight).contains(hits), "{hits:?}");
        }
    }

    proptest! {
        #[test]
        fn one_that_leaves_moves_its_own_keys_alone(count in 2u32..30, gone in 0u32..30) {
            let gone = gone % count;
            let (all, rest) = (backends(0..count), backends((0..count).filter(|number| *number != gone)));
            let (before, after) = (Ring::new(&all), Ring::new(&rest));
            for key in keys(500) {
                let (before, after) = (all[before.pick(key, |_| true).unwrap()], rest[after.pick(key, |_| true).unwrap()]);
                prop_assert!(before == after || before == all[gone as usize]);
            }
        }

        #[test]
        fn one_that_is_not_eligible_moves_its_own_keys_alone(count in 2usize..30, out in 0usize..30) {
            let ring = Ring::new(&backends(0..count as u32));
            let out = out % count;
            for key in keys(300) {
                let picked = ring.pick(key, |_| true).unwrap();
                let other = ring.pick(key, |position| position != out);
                if picked == out { prop_assert_ne!(other, Some(out)); } else { prop_assert_eq!(other, Some(picked)); }
            }
        }
    }

    #[test]
    fn a_large_ring_is_bounded() {
        let ring = Ring::new(&backends(0..16_384));
        assert!(ring.points.len() as u64 <= MOST && ring.points.len() >= 16_384);
    }
}
