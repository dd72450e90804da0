//! Where the webhook reads policies: the watch's cache first, and the API server where the cache has no answer, since a
//! policy may have been applied a moment before its pods.

use std::sync::Arc;

use crds::policy::SidecarPolicy;
use futures::{FutureExt, future::BoxFuture};
use kube::{Api, Client, ResourceExt, api::ListParams, runtime::reflector::Store};

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

    /// What the API server says now. The caller bounds the time.
    fn live<'a>(
        &'a self,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<SidecarPolicy>>, LiveReadError>>;
}

/// The policies of a cluster.
#[derive(Clone)]
pub struct ClusterPolicies {
    pub store: Store<SidecarPolicy>,
    pub client: Client,
}

impl PolicySource for ClusterPolicies {
    fn cached(&self, namespace: &str) -> Vec<Arc<SidecarPolicy>> {
        let mut policies = self.store.state();
        policies.retain(|policy| policy.namespace().as_deref() == Some(namespace));
        policies
    }

    fn live<'a>(
        &'a self,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<SidecarPolicy>>, LiveReadError>> {
        async move {
            let policies = Api::<SidecarPolicy>::namespaced(self.client.clone(), namespace)
                .list(&ListParams::default())
                .await
                .map_err(|source| LiveReadError { namespace: namespace.to_owned(), source })?;
            Ok(policies.items.into_iter().map(Arc::new).collect())
        }
        .boxed()
    }
}
