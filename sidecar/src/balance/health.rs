//! The health of one backend as a state machine over the outcomes of its checks. Pure.
//!
//! unknown | awaited -(first check)-> up | down; up -(failures in a row, or one while suspect)-> down; down -(successes in a row)-> up.

use crds::config::InitialHealth;

/// What the checks have said so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// Not checked yet: takes traffic, so that a start is no outage.
    Unknown,
    /// Not checked yet, and takes no traffic before it was.
    Awaited,
    Up,
    Down(Cause),
}

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// Nothing listens there: no use in sending requests.
    Refused,
    /// Something is there and did not answer well; it may still serve requests.
    Failed,
    /// It is well, in another role than is wanted, or nobody knows in which: what it would do with requests is wrong.
    OtherRole,
}

/// Checks in a row that change the condition, each at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Thresholds {
    pub(super) healthy: u32,
    pub(super) unhealthy: u32,
}

/// Condition and how far it is from changing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Health {
    condition: Condition,
    /// Checks in a row that contradict the condition.
    contradicting: u32,
}

impl Condition {
    pub fn is_usable(self) -> bool {
        matches!(self, Self::Unknown | Self::Up)
    }

    pub fn is_down(self) -> bool {
        matches!(self, Self::Down(_))
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Up => 1,
            Self::Down(Cause::Refused) => 2,
            Self::Down(Cause::Failed) => 3,
            Self::Awaited => 4,
            Self::Down(Cause::OtherRole) => 5,
        }
    }

    pub(super) fn from_code(code: u8) -> Self {
        match code {
            0 => Self::Unknown,
            1 => Self::Up,
            2 => Self::Down(Cause::Refused),
            4 => Self::Awaited,
            5 => Self::Down(Cause::OtherRole),
            _ => Self::Down(Cause::Failed),
        }
    }
}

impl From<InitialHealth> for Condition {
    fn from(initial: InitialHealth) -> Self {
        match initial {
            InitialHealth::Up => Self::Unknown,
            InitialHealth::Down => Self::Awaited,
        }
    }
}

impl Health {
    /// Goes on from an earlier condition; a new backend's is unknown or awaited.
    pub(super) fn resumed(condition: Condition) -> Self {
        Self { condition, contradicting: 0 }
    }

    pub(super) fn condition(&self) -> Condition {
        self.condition
    }

    /// Up, and no check says otherwise.
    pub(super) fn is_surely_up(&self) -> bool {
        self.condition == Condition::Up && self.contradicting == 0
    }

    /// Takes in one check. `suspect`: the data path could not connect either, so a failure needs no confirmation.
    pub(super) fn checked(&mut self, outcome: Result<(), Cause>, suspect: bool, thresholds: Thresholds) {
        match (self.condition, outcome) {
            (Condition::Unknown | Condition::Awaited, Ok(())) => self.turn(Condition::Up),
            (Condition::Unknown | Condition::Awaited, Err(cause)) => self.turn(Condition::Down(cause)),
            (Condition::Up, Ok(())) => self.contradicting = 0,
            (Condition::Down(_), Err(cause)) => self.turn(Condition::Down(cause)),
            (Condition::Up, Err(cause)) => {
                self.contradicting += 1;
                if suspect || self.contradicting >= thresholds.unhealthy {
                    self.turn(Condition::Down(cause));
                }
            }
            (Condition::Down(_), Ok(())) => {
                self.contradicting += 1;
                if self.contradicting >= thresholds.healthy {
                    self.turn(Condition::Up);
                }
            }
        }
    }

    fn turn(&mut self, condition: Condition) {
        *self = Self { condition, contradicting: 0 };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FAILED: Result<(), Cause> = Err(Cause::Failed);
    const THRESHOLDS: Thresholds = Thresholds { healthy: 2, unhealthy: 3 };

    fn after(outcomes: &[Result<(), Cause>]) -> Condition {
        from(Condition::Unknown, outcomes)
    }

    fn from(first: Condition, outcomes: &[Result<(), Cause>]) -> Condition {
        let mut health = Health::resumed(first);
        for outcome in outcomes {
            health.checked(*outcome, false, THRESHOLDS);
        }
        health.condition()
    }

    #[test]
    fn the_first_check_decides() {
        assert_eq!(after(&[Ok(())]), Condition::Up);
        assert_eq!(after(&[FAILED]), Condition::Down(Cause::Failed));
        assert_eq!(from(Condition::Awaited, &[Ok(())]), Condition::Up, "whatever the threshold is");
        assert_eq!(from(Condition::Awaited, &[FAILED]), Condition::Down(Cause::Failed));
        assert!(Condition::Unknown.is_usable() && !Condition::Awaited.is_usable());
    }

    #[test]
    fn only_failures_in_a_row_take_a_backend_out() {
        assert_eq!(after(&[Ok(()), FAILED, FAILED, Ok(()), FAILED, FAILED]), Condition::Up);
        assert_eq!(after(&[Ok(()), FAILED, FAILED, FAILED]), Condition::Down(Cause::Failed));
    }

    #[test]
    fn only_successes_in_a_row_bring_it_back() {
        assert_eq!(after(&[FAILED, Ok(()), FAILED, Ok(())]), Condition::Down(Cause::Failed));
        assert_eq!(after(&[FAILED, Ok(()), Ok(())]), Condition::Up);
    }

    #[test]
    fn one_failure_confirms_a_suspicion() {
        let mut health = Health::resumed(Condition::Unknown);
        health.checked(Ok(()), false, THRESHOLDS);
        health.checked(Err(Cause::Refused), true, THRESHOLDS);
        assert_eq!(health.condition(), Condition::Down(Cause::Refused));
    }

    #[test]
    fn a_condition_survives_its_code() {
        for condition in [
            Condition::Unknown,
            Condition::Awaited,
            Condition::Up,
            Condition::Down(Cause::Refused),
            Condition::Down(Cause::Failed),
            Condition::Down(Cause::OtherRole),
        ] {
            assert_eq!(Condition::from_code(condition.code()), condition);
        }
    }

    proptest! {
        #[test]
        fn the_condition_follows_the_last_run_of_equal_outcomes(
            outcomes in prop::collection::vec(any::<bool>(), 1..40), healthy in 1u32..5, unhealthy in 1u32..5,
        ) {
            let thresholds = Thresholds { healthy, unhealthy };
            let mut health = Health::resumed(Condition::Unknown);
            let mut run = 0;
            let mut last = None;
            for good in outcomes {
                let before = health.condition();
                run = if last == Some(good) { run + 1 } else { 1 };
                last = Some(good);
                health.checked(if good { Ok(()) } else { FAILED }, false, thresholds);
                let now = health.condition();
                prop_assert_ne!(now, Condition::Unknown);
                if good && run >= healthy { prop_assert_eq!(now, Condition::Up); }
                if !good && run >= unhealthy { prop_assert!(!now.is_usable()); }
                if before != Condition::Unknown && now.is_usable() != before.is_usable() {
                    prop_assert_eq!(now.is_usable(), good);
                    let threshold = if good { healthy } else { unhealthy };
                    prop_assert!(run >= threshold);
                }
            }
        }
    }
}
