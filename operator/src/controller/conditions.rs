//! Verdicts -> conditions, as the Kubernetes API conventions want them. Pure; no client required.

use crds::policy::conditions;
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};

/// Longest message of a condition; the API allows eight times as much.
const LONGEST_MESSAGE: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// One condition without its history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    pub truth: Truth,
    pub reason: &'static str,
    /// What is the case and, where it is not good, what to do.
    pub message: String,
}

impl Verdict {
    pub(super) fn new(truth: Truth, reason: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        if message.len() > LONGEST_MESSAGE {
            let end =
                (0..=LONGEST_MESSAGE).rev().find(|end| message.is_char_boundary(*end)).unwrap_or_default();
            message.truncate(end);
            message.push_str(" ...");
        }
        Self { truth, reason, message }
    }
}

/// The three verdicts of a policy, each needing the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdicts {
    pub accepted: Verdict,
    pub resolved: Verdict,
    pub ready: Verdict,
}

/// Makes the conditions of this generation. The time of the last transition is kept while the status stays what it was.
pub(super) fn conditions(
    previous: &[Condition],
    verdicts: &Verdicts,
    generation: i64,
    now: Timestamp,
) -> Vec<Condition> {
    [
        (conditions::ACCEPTED, &verdicts.accepted),
        (conditions::RESOLVED_REFS, &verdicts.resolved),
        (conditions::READY, &verdicts.ready),
    ]
    .into_iter()
    .map(|(type_, verdict)| {
        let status = verdict.truth.as_str();
        let since = find(previous, type_)
            .filter(|condition| condition.status == status)
            .map_or(Time(now), |condition| condition.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: verdict.reason.to_owned(),
            message: verdict.message.clone(),
            observed_generation: Some(generation),
            last_transition_time: since,
        }
    })
    .collect()
}

/// The conditions that say something new: another status or another reason than before.
pub(super) fn transitions<'a>(previous: &[Condition], now: &'a [Condition]) -> Vec<&'a Condition> {
    now.iter()
        .filter(|condition| {
            find(previous, &condition.type_)
                .is_none_or(|before| before.status != condition.status || before.reason != condition.reason)
        })
        .collect()
}

fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdicts(ready: Truth, reason: &'static str) -> Verdicts {
        let good = Verdict::new(Truth::True, "Good", "good");
        Verdicts { accepted: good.clone(), resolved: good, ready: Verdict::new(ready, reason, "message") }
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let first = conditions(&[], &verdicts(Truth::True, "Applied"), 1, second(1));
        let same = conditions(&first, &verdicts(Truth::True, "Other"), 2, second(2));
        assert_eq!(same[2].last_transition_time, Time(second(1)));
        assert_eq!((same[2].observed_generation, same[2].reason.as_str()), (Some(2), "Other"));
        let moved = conditions(&same, &verdicts(Truth::False, "ApplyFailed"), 2, second(3));
        assert_eq!(moved[2].last_transition_time, Time(second(3)));
        assert_eq!(moved[0].last_transition_time, Time(second(1)));
    }

    #[test]
    fn only_what_is_new_is_a_transition() {
        let first = conditions(&[], &verdicts(Truth::True, "Applied"), 1, second(1));
        assert_eq!(transitions(&[], &first).len(), 3);
        let next = conditions(&first, &verdicts(Truth::False, "ApplyFailed"), 1, second(2));
        let types: Vec<&str> =
            transitions(&first, &next).iter().map(|condition| condition.type_.as_str()).collect();
        assert_eq!(types, [crds::policy::conditions::READY]);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let verdict = Verdict::new(Truth::False, "Long", "ä".repeat(LONGEST_MESSAGE));
        assert!(verdict.message.len() <= LONGEST_MESSAGE + 4 && verdict.message.ends_with(" ..."));
    }
}
