//! Policies for the webhook, from the controller's cache and from the API server. Client required.
//!
//! A policy that this release cannot read serves no pod; the others do. Its conditions say why, and denials name it.

use std::sync::Arc;

use crds::policy::SidecarPolicy;
use futures::{FutureExt, future::BoxFuture};
use kube::{Api, Client, api::ListParams, core::DeserializeGuard};

use super::world::World;
use crate::webhook::{LiveReadError, PolicySource};

/// The policies of the cluster.
#[derive(Clone)]
pub struct Policies {
    pub client: Client,
    pub world: Arc<World>,
}

impl PolicySource for Policies {
    fn cached(&self, namespace: &str) -> Vec<Arc<SidecarPolicy>> {
        self.world.readable_policies(namespace)
    }

    fn unreadable(&self, namespace: &str) -> Vec<String> {
        self.world.unreadable_policies(namespace)
    }

    fn live<'a>(
        &'a self,
        namespace: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Arc<SidecarPolicy>>, LiveReadError>> {
        async move {
            let api = Api::<DeserializeGuard<SidecarPolicy>>::namespaced(self.client.clone(), namespace);
            let policies = api
                .list(&ListParams::default())
                .await
                .map_err(|source| LiveReadError { namespace: namespace.to_owned(), source })?;
            Ok(policies.items.into_iter().filter_map(|policy| policy.0.ok()).map(Arc::new).collect())
        }
        .boxed()
    }
}
