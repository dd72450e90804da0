//! Passive checks: who is taken out because requests fail there, and for how long. Pure.
//!
//! An outlier is one that fails while others do well. Where all fail alike, taking one out helps nobody: it may be the
//! requests.

use crds::config::OutlierDetection;
use tokio::time::{Duration, Instant};

/// The rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ejection {
    /// Failures in a row; 0 for never.
    pub(super) errors: u32,
    base: Duration,
    max: Duration,
    percent: usize,
}

impl From<&OutlierDetection> for Ejection {
    fn from(rules: &OutlierDetection) -> Self {
        Self {
            errors: rules.consecutive_errors,
            base: rules.base_ejection_time.as_std(),
            max: rules.max_ejection_time.as_std().max(rules.base_ejection_time.as_std()),
            percent: rules.max_ejected_percent.min(100) as usize,
        }
    }
}

/// What speaks for and against taking a backend out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Case {
    /// Failures in a row.
    pub(super) failures: u32,
    /// Backends of the site that could take traffic, this one and those that are out by ejection among them.
    pub(super) usable: usize,
    /// Those of them that are out by ejection.
    pub(super) ejected: usize,
    /// Another of the site has done well while this one failed.
    pub(super) others_do_well: bool,
    /// A later site could take the traffic.
    pub(super) later_site: bool,
}

impl Ejection {
    /// Nobody is ever taken out.
    pub(super) const NONE: Self = Self { errors: 0, base: Duration::ZERO, max: Duration::ZERO, percent: 0 };

    /// Whether the backend goes. The last one of the last site never does: no other does well then.
    pub(super) fn applies(&self, case: Case) -> bool {
        let share = case.usable * self.percent / 100;
        let whole_site_may_go = share == case.usable && case.later_site;
        self.errors != 0
            && case.failures >= self.errors
            && case.ejected < share
            && (case.others_do_well || whole_site_may_go)
    }
}

/// Whether one backend is out, and how often it was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Record {
    until: Option<Instant>,
    /// How many times the base time it is out, or was out last.
    times: u32,
    returned: Option<Instant>,
}

impl Record {
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn is_out(&self) -> bool {
        self.until.is_some()
    }

    /// Takes the backend out, each time in a row for one base time longer, and gives the time. Each whole base time in
    /// traffic makes up for one.
    pub(super) fn eject(&mut self, rules: &Ejection, now: Instant) -> Duration {
        let served = self.returned.map_or(Duration::ZERO, |returned| now.saturating_duration_since(returned));
        let made_up = served.as_millis() / rules.base.as_millis().max(1);
        self.times = self.times.saturating_sub(u32::try_from(made_up).unwrap_or(u32::MAX)).saturating_add(1);
        let time = rules.base.saturating_mul(self.times).min(rules.max);
        self.until = Some(now + time);
        time
    }

    /// True if its time has come.
    pub(super) fn return_at(&mut self, now: Instant) -> bool {
        let over = self.until.is_some_and(|until| until <= now);
        if over {
            *self = Self { until: None, returned: Some(now), times: self.times };
        }
        over
    }

    /// True if it was out.
    pub(super) fn clear(&mut self) -> bool {
        std::mem::take(self).is_out()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules() -> Ejection {
        (&OutlierDetection::default()).into()
    }

    const BAD: Case = Case { failures: 5, usable: 4, ejected: 0, others_do_well: true, later_site: false };

    #[test]
    fn only_who_fails_in_a_row_while_others_do_well_goes() {
        let half = rules();
        let all = Ejection { percent: 100, ..half };
        for (rules, case, expected) in [
            (half, BAD, true),
            (half, Case { failures: 4, ..BAD }, false),
            (half, Case { others_do_well: false, ..BAD }, false),
            (half, Case { others_do_well: false, later_site: true, ..BAD }, false),
            (half, Case { ejected: 1, ..BAD }, true),
            (half, Case { ejected: 2, ..BAD }, false),
            (half, Case { usable: 3, ejected: 1, ..BAD }, false),
            (half, Case { usable: 1, later_site: true, ..BAD }, false),
            (all, Case { ejected: 3, others_do_well: false, ..BAD }, false),
            (all, Case { ejected: 3, others_do_well: false, later_site: true, ..BAD }, true),
            (Ejection { errors: 0, ..half }, BAD, false),
            (Ejection { percent: 0, ..half }, BAD, false),
        ] {
            assert_eq!(rules.applies(case), expected, "{rules:?} {case:?}");
        }
    }

    #[test]
    fn the_time_grows_up_to_its_limit_and_good_behaviour_makes_up_for_it() {
        let (rules, mut record, mut now) = (rules(), Record::default(), Instant::now());
        let mut eject = |record: &mut Record, served: Duration| {
            now += served;
            let time = record.eject(&rules, now);
            now += time;
            assert!(record.return_at(now));
            time.as_secs()
        };
        let times: Vec<_> = (0..12).map(|_| eject(&mut record, Duration::from_secs(1))).collect();
        assert_eq!(times, [30, 60, 90, 120, 150, 180, 210, 240, 270, 300, 300, 300]);
        assert_eq!(eject(&mut record, Duration::from_secs(300)), 90, "3 = 12 - 10 made up + 1");
        assert_eq!(eject(&mut record, Duration::from_secs(3_000)), 30);
    }

    #[test]
    fn it_returns_when_its_time_has_come_and_not_before() {
        let (mut record, now) = (Record::default(), Instant::now());
        assert!(!record.return_at(now));
        let time = record.eject(&rules(), now);
        assert!(!record.return_at(now + time - Duration::from_millis(1)));
        assert!(record.return_at(now + time));
        assert!(!record.return_at(now + time), "it returns once");
    }

    proptest! {
        #[test]
        fn never_more_than_the_share_is_out(
            usable in 1usize..40, percent in 0u32..=100, later_site: bool, good in 0usize..40,
        ) {
            let rules: Ejection = (&OutlierDetection { max_ejected_percent: percent, ..OutlierDetection::default() }).into();
            let mut ejected = 0;
            for one in 0..usable {
                // The last ones do well, as many as there are.
                let others_do_well = one + 1 < usable && good > 0;
                let case = Case { failures: 9, usable, ejected, others_do_well, later_site };
                ejected += usize::from(rules.applies(case));
            }
            prop_assert!(ejected * 100 <= usable * percent as usize);
            prop_assert!(later_site || ejected < usable, "the last of the last site stays");
        }
    }
}
