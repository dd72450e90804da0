//! Whom the checks of backends tell what they saw: the writer of the route, of what changes it, and a watcher, of each.

use std::{sync::Arc, time::Duration};

use crds::units::Address;
use http::StatusCode;
use tokio::sync::mpsc;

use super::check::Report;
use crate::probe::{Failure, Get};

/// One check that has ended.
#[derive(Debug, Clone, Copy)]
pub struct Checked<'a> {
    pub site: &'a str,
    pub backend: &'a Address,
    /// What was asked for, where the check does more than to connect.
    pub get: Option<&'a Get>,
    pub took: Duration,
    /// The status of the answer, where there was one.
    pub outcome: Result<Option<StatusCode>, &'a Failure>,
}

/// Called with each check as it ends, on the runtime of the checks: it must not take long.
pub type Watcher = Arc<dyn Fn(&Checked<'_>) + Send + Sync>;

/// Both of them.
#[derive(Clone)]
pub(super) struct Audience {
    pub(super) reports: mpsc::Sender<Report>,
    pub(super) watcher: Option<Watcher>,
}
