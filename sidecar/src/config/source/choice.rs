//! Which of two configurations is the newer one. Pure.
//!
//! The API server is the truth and tells it in order. The mounted file is the same ConfigMap some time ago, so that it
//! only helps where the API cannot be reached. What an earlier run kept stands in until one of them answers.

use crds::config::PolicyReference;

use super::Origin;

/// What is known of a configuration before it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub origin: Origin,
    pub policy: Option<PolicyReference>,
    pub fingerprint: u64,
}

/// What to do with a configuration that was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Use,
    /// It is in use already.
    Same,
    /// It is older than the one in use.
    Stale,
}

/// Compares a configuration with the one in use.
pub fn judge(current: Option<&Version>, new: &Version) -> Verdict {
    let Some(current) = current else { return Verdict::Use };
    if current.fingerprint == new.fingerprint {
        return Verdict::Same;
    }
    let newer = match (current.origin, new.origin) {
        // One source tells its versions in order, and nothing is ahead of the API. A policy that was deleted and made
        // again starts at generation 1, so that a lower generation from there is no sign of age.
        (_, Origin::Api | Origin::Given) | (Origin::File, Origin::File) => true,
        (Origin::Api, Origin::File) => generation(new) > generation(current) && same_policy(current, new),
        (Origin::LastGood, Origin::File) => {
            !same_policy(current, new) || generation(new) > generation(current)
        }
        // What the API said in this run is newer than anything that an earlier run has kept.
        (Origin::Api, Origin::LastGood) | (Origin::Given, _) => false,
        (_, Origin::LastGood) => same_policy(current, new) && generation(new) > generation(current),
    };
    if newer { Verdict::Use } else { Verdict::Stale }
}

fn generation(version: &Version) -> Option<i64> {
    version.policy.as_ref().map(|policy| policy.generation)
}

fn same_policy(a: &Version, b: &Version) -> bool {
    match (&a.policy, &b.policy) {
        (Some(a), Some(b)) => a.namespace == b.namespace && a.name == b.name,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::{Origin::*, Verdict::*, *};

    fn version(origin: Origin, generation: Option<i64>, fingerprint: u64) -> Version {
        let policy = generation.map(|generation| PolicyReference {
            namespace: "team".to_owned(),
            name: "data".to_owned(),
            generation,
        });
        Version { origin, policy, fingerprint }
    }

    #[test]
    fn the_newest_configuration_is_used() {
        for (current, new, verdict) in [
            // The operator resolved a Service again: same generation, other content.
            ((File, Some(3), 1), (Api, Some(3), 2), Use),
            ((Api, Some(3), 1), (File, Some(3), 2), Stale),
            ((Api, Some(3), 1), (Api, Some(3), 2), Use),
            // The file lags behind the API, or is ahead of a broken watch.
            ((Api, Some(3), 1), (File, Some(2), 2), Stale),
            ((Api, Some(3), 1), (File, Some(4), 2), Use),
            ((File, Some(3), 1), (Api, Some(4), 2), Use),
            // A policy that was deleted and made again.
            ((Api, Some(9), 1), (Api, Some(1), 2), Use),
            ((File, Some(9), 1), (File, Some(1), 2), Use),
            ((Api, Some(1), 1), (File, Some(1), 1), Same),
            // Without generations.
            ((File, None, 1), (File, None, 2), Use),
            ((Api, None, 1), (File, None, 2), Stale),
            ((Api, Some(1), 1), (File, None, 2), Stale),
            // A restart: the file is read, then what was kept.
            ((LastGood, Some(3), 1), (File, Some(2), 2), Stale),
            ((LastGood, Some(3), 1), (File, Some(3), 2), Stale),
            ((LastGood, Some(3), 1), (File, Some(4), 2), Use),
            ((LastGood, None, 1), (File, None, 2), Use),
            ((LastGood, Some(3), 1), (Api, Some(1), 2), Use),
            ((Api, Some(1), 1), (LastGood, Some(9), 2), Stale),
            ((File, Some(3), 1), (LastGood, Some(4), 2), Use),
            ((File, Some(3), 1), (LastGood, Some(2), 2), Stale),
        ] {
            let (current, new) = (version(current.0, current.1, current.2), version(new.0, new.1, new.2));
            assert_eq!(judge(Some(&current), &new), verdict, "{current:?} then {new:?}");
        }
        assert_eq!(judge(None, &version(LastGood, None, 1)), Use);
    }
}
