//! Ways to choose a backend, whatever the protocol calls them.

use crds::config::{Balance, L4Balance};

/// What a choice goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Of two drawn by weight, the one with less load.
    LeastOfTwo,
    /// The one with the least load of all.
    LeastOfAll,
    /// As `LeastOfTwo`, by load times recent latency.
    PeakEwma,
    RoundRobin,
    Random,
    /// The same one for the same hash; without a hash as `LeastOfTwo`.
    Hash,
}

impl From<Balance> for Method {
    fn from(balance: Balance) -> Self {
        match balance {
            Balance::LeastRequest => Self::LeastOfTwo,
            Balance::PeakEwma => Self::PeakEwma,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Random => Self::Random,
            Balance::HeaderHash => Self::Hash,
        }
    }
}

impl From<L4Balance> for Method {
    fn from(balance: L4Balance) -> Self {
        match balance {
            L4Balance::LeastConnections => Self::LeastOfAll,
            L4Balance::TwoChoices => Self::LeastOfTwo,
            L4Balance::RoundRobin => Self::RoundRobin,
            L4Balance::Random => Self::Random,
            L4Balance::SourceHash => Self::Hash,
        }
    }
}
