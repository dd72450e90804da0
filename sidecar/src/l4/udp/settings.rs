//! What a listener's sessions go by, as far as it may change while the listener is open.

use std::time::Duration;

use crds::config::UdpListener;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Settings {
    /// A session that was silent for this time ends.
    pub(super) timeout: Duration,
    /// Sessions of all threads.
    pub(super) most: usize,
}

impl From<&UdpListener> for Settings {
    fn from(config: &UdpListener) -> Self {
        Self { timeout: config.session_timeout.as_std(), most: config.max_sessions.get() as usize }
    }
}
