//! Where the webhook reads policies: the watch's cache first, and the API server where the cache has no answer, since a
//! policy may have been applied a moment before its pods.

use std::sync::Arc;

use crds::policy::SidecarPolicy;
use futures::future::BoxFuture;

/// The API server could not be asked. The pod's author can only try again.
#[derive(Debug, thiserror::Error)]
#[error("the policies of namespace {namespace} could not be read from the API server")]
pub struct LiveReadError {
    pub namespace: String,
    pub source: kube::Error,
}

/// A source of the policies of one namespace.
pub trait PolicySource: Send + Sync + 'static {
    /// What the watch last saw. Never waits.
    fn cached(&self, namespace: &str) -> Vec<Arc<SidecarPolicy>>;

    /// Names of the policies that the watch saw and this release cannot read, in order.
    fn unreadable(&self, namespace: &str) -> Vec<String>;

    /// What the API server says now. The caller bounds the time.
    fn live<'a>(
        &'a self,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<SidecarPolicy>>, LiveReadError>>;
}
