//! Least requests by the power of two choices: two at random, then the one with fewer requests under way. Pure.

/// Picks an index below `count` that is eligible, or none if there is none. `random` gives a number below its argument.
/// The cost does not grow with `count` while most are eligible.
pub(super) fn pick(
    count: usize,
    eligible: impl Fn(usize) -> bool,
    load: impl Fn(usize) -> usize,
    mut random: impl FnMut(usize) -> usize,
) -> Option<usize> {
    let next = |start: usize, except: Option<usize>| {
        (start..count).chain(0..start).find(|&index| Some(index) != except && eligible(index))
    };
    if count == 0 {
        return None;
    }
    let first = next(random(count), None)?;
    let Some(second) = (count > 1).then(|| (first + 1 + random(count - 1)) % count) else {
        return Some(first);
    };
    let Some(second) = next(second, Some(first)) else { return Some(first) };
    let (a, b) = (load(first), load(second));
    Some(if a < b || a == b && random(2) == 0 { first } else { second })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn randomly(seed: u64) -> impl FnMut(usize) -> usize {
        let mut random = fastrand::Rng::with_seed(seed);
        move |below| random.usize(..below)
    }

    #[test]
    fn equal_backends_get_equal_shares() {
        let mut random = randomly(7);
        for count in 1..=5 {
            let mut hits = vec![0; count];
            for _ in 0..6_000 {
                hits[pick(count, |_| true, |_| 0, &mut random).unwrap()] += 1;
            }
            let fair = 6_000 / count;
            assert!(hits.iter().all(|hits| (fair * 9 / 10..=fair * 11 / 10).contains(hits)), "{hits:?}");
        }
    }

    proptest! {
        #[test]
        fn of_two_the_busier_is_never_picked(a in 0usize..50, b in 0usize..50, seed: u64) {
            let loads = [a, b];
            let picked = pick(2, |_| true, |index| loads[index], randomly(seed)).unwrap();
            prop_assert_eq!(loads[picked], a.min(b));
        }

        #[test]
        fn the_busiest_of_many_is_never_picked(mut loads in prop::collection::vec(0usize..50, 2..20), seed: u64) {
            loads[0] = 100;
            prop_assert_ne!(pick(loads.len(), |_| true, |index| loads[index], randomly(seed)), Some(0));
        }

        #[test]
        fn what_is_picked_is_eligible_and_something_is_picked(
            eligible in prop::collection::vec(any::<bool>(), 0..20), seed: u64,
        ) {
            match pick(eligible.len(), |index| eligible[index], |index| index, randomly(seed)) {
                Some(index) => prop_assert!(eligible[index]),
                None => prop_assert!(!eligible.contains(&true)),
            }
        }
    }
}
