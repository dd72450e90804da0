//! What key sets show in metrics: whether they can be had, how old they are, and how many keys they have. A set that no listener
//! names any more takes its series with it.

use std::{
    collections::BTreeMap,
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

use crds::metrics::Metric;
use prometheus_client::{
    encoding::{DescriptorEncoder, NoLabelSet},
    metrics::MetricType,
};

const SOURCE: &[&str] = &["source"];

const FETCHES: Metric = Metric {
    name: "sidecar_jwks_fetches",
    kind: MetricType::Counter,
    labels: &["source", "result"],
    help: "Times that the key set was fetched from its URL, or that a file that is new was read, and whether what came can be used: `good` or `failed`. The label `source` has the URL without its query, or the path",
    look: "When `failed` grows: the sidecar's log says why, and tokens that are signed with new keys are not let in",
};

const LAST_GOOD: Metric = Metric {
    name: "sidecar_jwks_last_good_timestamp_seconds",
    kind: MetricType::Gauge,
    labels: SOURCE,
    help: "When the key set was had the last time, in seconds since 1970; nothing if it never was. That of a file is read when it is replaced",
    look: "When it is much older than `refresh`, for a URL: keys that the issuer has withdrawn still count",
};

const KEYS: Metric = Metric {
    name: "sidecar_jwks_keys",
    kind: MetricType::Gauge,
    labels: SOURCE,
    help: "Keys of the set that tokens are verified with now",
    look: "When it is 0: the set was never had, and requests with a token are answered with 503",
};

/// What key sets show in metrics.
pub(in crate::http) const FAMILIES: [&Metric; 3] = [&FETCHES, &LAST_GOOD, &KEYS];

/// What is counted of one source.
#[derive(Debug, Default)]
pub(super) struct Figures {
    good: AtomicU64,
    failed: AtomicU64,
    /// Seconds since 1970; 0 for never.
    last_good: AtomicU64,
}

/// The same at one moment; of several sources under one name, all of them together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shown {
    good: u64,
    failed: u64,
    last_good: u64,
    keys: u64,
}

impl Figures {
    /// `now`: seconds since 1970.
    pub(super) fn good(&self, now: u64) {
        self.good.fetch_add(1, Ordering::Relaxed);
        self.last_good.store(now, Ordering::Relaxed);
    }

    pub(super) fn failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn show(&self, keys: usize) -> Shown {
        Shown {
            good: self.good.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            last_good: self.last_good.load(Ordering::Relaxed),
            keys: keys as u64,
        }
    }
}

impl Shown {
    /// The oldest of several, since each must be current.
    pub(super) fn add(&mut self, other: Self) {
        self.good += other.good;
        self.failed += other.failed;
        self.last_good = self.last_good.min(other.last_good);
        self.keys = self.keys.min(other.keys);
    }
}

pub(super) fn encode(encoder: &mut DescriptorEncoder<'_>, sources: &BTreeMap<String, Shown>) -> fmt::Result {
    let mut family = FETCHES.encode(encoder)?;
    for (source, shown) in sources {
        for (result, count) in [("good", shown.good), ("failed", shown.failed)] {
            let labels = [("source", source.as_str()), ("result", result)];
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
    }
    let mut family = LAST_GOOD.encode(encoder)?;
    for (source, shown) in sources.iter().filter(|(_, shown)| shown.last_good > 0) {
        family.encode_family(&[("source", source.as_str())])?.encode_gauge(&shown.last_good)?;
    }
    let mut family = KEYS.encode(encoder)?;
    for (source, shown) in sources {
        family.encode_family(&[("source", source.as_str())])?.encode_gauge(&shown.keys)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_of_one_name_are_as_good_as_the_worst_of_them() {
        let (current, never) = (Figures::default(), Figures::default());
        current.good(7);
        current.good(9);
        never.failed();
        let mut both = current.show(2);
        assert_eq!(both, Shown { good: 2, failed: 0, last_good: 9, keys: 2 });
        both.add(never.show(0));
        assert_eq!(both, Shown { good: 2, failed: 1, last_good: 0, keys: 0 });
    }
}
