//! What is to be done about the certificates next. Pure: wall clock and observations are arguments.
//!
//! create -> publish -> (renew the leaf)* -> next CA -> publish both -> settle -> leaf from the next CA -> all replicas
//! serve it -> drop the old -> publish.
//!
//! A clock that was ahead leaves certificates that are not valid yet: they are made anew, as those that have expired.

use super::material::{Material, Validities};

/// How long a bundle is given to reach every API server, in seconds.
const LONGEST_SETTLE: i64 = 60;

/// How often the clock is looked at, in seconds.
const LONGEST_WAIT: i64 = 60;

/// The next thing to do. After each one the plan is made anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A new CA and a leaf from it: there are none, or none that anyone would trust.
    Create,
    /// The bundle goes into the webhook's configuration.
    Publish,
    RenewLeaf,
    /// A second CA, that signs nothing yet.
    BeginRotation,
    /// The second CA takes over.
    Promote,
    /// The old CA goes as soon as every replica serves a leaf from the new one.
    DropOldOnceServed,
    /// The old CA goes: it has expired and serves nobody any more.
    DropOld,
    /// Nothing for so many seconds.
    Wait(i64),
}

/// What the API server shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Observed<'a> {
    /// Names that the leaf must be for.
    pub names: &'a [String],
    pub publication: Publication,
}

/// The bundle in the webhook's configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Publication {
    /// There is no configuration to publish in.
    Impossible,
    /// Another bundle than the one that should be there, or none.
    Different,
    /// The right one, seen there for so many seconds.
    Current(i64),
}

/// Decides the next step at `now`.
pub(super) fn plan(
    material: Option<&Material>,
    observed: Observed<'_>,
    validities: Validities,
    now: i64,
) -> Step {
    let Some(material) = material else { return Step::Create };
    if now >= material.authority.window.not_after {
        let next = material.next.as_ref().filter(|next| now >= next.window.not_before);
        return if next.is_some() { Step::Promote } else { Step::Create };
    }
    if now < material.authority.window.not_before {
        return Step::Create;
    }
    if observed.publication == Publication::Different {
        return Step::Publish;
    }
    let leaf = material.leaf.window;
    if now < leaf.not_before || now >= leaf.renewal() || !material.leaf_fits(observed.names) {
        return Step::RenewLeaf;
    }
    if let Some((_, window)) = &material.old {
        return if now >= window.not_after { Step::DropOld } else { Step::DropOldOnceServed };
    }
    if let Some(next) = &material.next {
        if now < next.window.not_before {
            return Step::BeginRotation;
        }
        return match observed.publication {
            Publication::Current(since) if since >= settle(validities) => Step::Promote,
            Publication::Current(since) => Step::Wait((settle(validities) - since).max(1)),
            Publication::Different | Publication::Impossible => Step::Wait(tick(validities)),
        };
    }
    if now >= material.authority.window.renewal() {
        return Step::BeginRotation;
    }
    let next = material.leaf.window.renewal().min(material.authority.window.renewal());
    Step::Wait((next - now).clamp(1, tick(validities)))
}

/// A bundle's time to reach every API server; less where certificates live for seconds.
fn settle(validities: Validities) -> i64 {
    (validities.leaf / 10).clamp(1, LONGEST_SETTLE)
}

/// The wall clock can jump: it is looked at often, also when nothing is due for long.
pub(super) fn tick(validities: Validities) -> i64 {
    (validities.leaf / 20).clamp(1, LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_790_000_000;
    const DAY: i64 = 86_400;

    fn validities() -> Validities {
        Validities { authority: 365 * DAY, leaf: 7 * DAY }
    }

    fn next(material: Option<&Material>, publication: Publication, now: i64) -> Step {
        let names = names();
        plan(material, Observed { names: &names, publication }, validities(), now)
    }

    fn names() -> Vec<String> {
        vec!["webhook.ns.svc".to_owned()]
    }

    #[test]
    fn a_whole_life_takes_its_steps_in_order() {
        let current = Publication::Current(1_000);
        assert_eq!(next(None, Publication::Different, NOW), Step::Create);
        let first = Material::create(&names(), validities(), NOW).unwrap();
        assert_eq!(next(Some(&first), Publication::Different, NOW), Step::Publish);
        assert_eq!(next(Some(&first), current, NOW), Step::Wait(60));
        assert_eq!(next(Some(&first), current, NOW + 4 * DAY), Step::Wait(60));
        assert_eq!(next(Some(&first), current, NOW + 5 * DAY), Step::RenewLeaf);

        let due = NOW + 244 * DAY;
        let late = first.with_leaf(&names(), validities(), due).unwrap();
        assert_eq!(next(Some(&late), current, due), Step::BeginRotation);
        let rotating = late.with_next(validities(), due).unwrap();
        assert_eq!(next(Some(&rotating), Publication::Different, due), Step::Publish);
        assert_eq!(next(Some(&rotating), Publication::Current(0), due), Step::Wait(60));
        assert_eq!(next(Some(&rotating), Publication::Current(60), due), Step::Promote);
        let promoted = rotating.promoted(&names(), validities(), due).unwrap();
        assert_eq!(next(Some(&promoted), current, due), Step::DropOldOnceServed);
        let done = promoted.without_old();
        assert_eq!(next(Some(&done), Publication::Different, due), Step::Publish);
        assert_eq!(next(Some(&done), current, due), Step::Wait(60));
    }

    #[test]
    fn an_operator_that_was_away_too_long_begins_anew() {
        let material = Material::create(&names(), validities(), NOW).unwrap();
        let expired = NOW + 366 * DAY;
        assert_eq!(next(Some(&material), Publication::Current(0), expired), Step::Create);
        let rotating = material.with_next(validities(), NOW + 300 * DAY).unwrap();
        assert_eq!(next(Some(&rotating), Publication::Current(0), expired), Step::Promote);
        let promoted = rotating.promoted(&names(), validities(), expired).unwrap();
        assert_eq!(next(Some(&promoted), Publication::Current(0), expired), Step::DropOld);
    }

    #[test]
    fn without_a_configuration_leaves_are_renewed_and_nothing_rotates() {
        let material = Material::create(&names(), validities(), NOW).unwrap();
        let rotating = material.with_next(validities(), NOW).unwrap();
        assert_eq!(next(Some(&rotating), Publication::Impossible, NOW), Step::Wait(60));
        assert_eq!(next(Some(&rotating), Publication::Impossible, NOW + 6 * DAY), Step::RenewLeaf);
    }

    #[test]
    fn a_leaf_for_other_names_is_replaced() {
        let material = Material::create(&["other.ns.svc".to_owned()], validities(), NOW).unwrap();
        assert_eq!(next(Some(&material), Publication::Current(0), NOW), Step::RenewLeaf);
    }

    #[test]
    fn what_a_clock_that_was_ahead_made_is_made_anew() {
        let (ahead, current) = (NOW + 30 * DAY, Publication::Current(1_000));
        let material = Material::create(&names(), validities(), ahead).unwrap();
        assert_eq!(next(Some(&material), current, NOW), Step::Create);

        let good = Material::create(&names(), validities(), NOW).unwrap();
        let leaf = good.with_leaf(&names(), validities(), ahead).unwrap();
        assert_eq!(next(Some(&leaf), current, NOW), Step::RenewLeaf);
        let rotating = good.with_next(validities(), ahead).unwrap();
        assert_eq!(next(Some(&rotating), current, NOW), Step::BeginRotation);
        let far = good.with_next(validities(), NOW + 400 * DAY).unwrap();
        assert_eq!(next(Some(&far), current, NOW + 366 * DAY), Step::Create);
    }

    #[test]
    fn seconds_of_validity_are_looked_at_every_second() {
        let short = Validities { authority: 30, leaf: 10 };
        let names = names();
        let material = Material::create(&names, short, NOW).unwrap();
        let observed = Observed { names: &names, publication: Publication::Current(0) };
        assert_eq!(plan(Some(&material), observed, short, NOW), Step::Wait(1));
        assert_eq!(plan(Some(&material), observed, short, NOW + 6), Step::RenewLeaf);
    }
}
