//! The Secret and the webhook's configuration, as every replica sees them. Client required.

use std::{fmt::Debug, pin::pin, sync::Arc};

use futures::StreamExt;
use k8s_openapi::api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret};
use kube::{
    Api, Client, Resource,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tracing::warn;

use super::{
    bundle,
    manager::Names,
    material::Material,
    serving::{Serving, load_from},
};
use crate::watches::Pauses;

/// What the watches last saw; `None` for what is not there.
#[derive(Debug, Default)]
pub struct Watched {
    pub(super) secret: watch::Sender<Option<Arc<Secret>>>,
    pub(super) configuration: watch::Sender<Option<Arc<MutatingWebhookConfiguration>>>,
}

impl Watched {
    /// Follows the Secret, and serves what it says, for as long as it runs.
    pub async fn follow_secret(&self, client: Client, names: &Names, serving: &Serving) {
        let api = Api::<Secret>::namespaced(client, &names.namespace);
        follow(api, &names.secret, |secret| {
            if let Some(secret) = &secret {
                load_from(serving, secret);
            }
            self.secret.send_replace(secret.map(Arc::new));
        })
        .await;
    }

    /// Follows the webhook's configuration, for as long as it runs.
    pub async fn follow_configuration(&self, client: Client, names: &Names) {
        let api = Api::<MutatingWebhookConfiguration>::all(client);
        follow(api, &names.configuration, |configuration| {
            self.configuration.send_replace(configuration.map(Arc::new));
        })
        .await;
    }

    /// Returns once API servers can trust what this replica serves: the CA of the Secret is in the caBundle.
    pub async fn trusted(&self) {
        let (mut secret, mut configuration) = (self.secret.subscribe(), self.configuration.subscribe());
        loop {
            let (now, then) = (secret.borrow_and_update().clone(), configuration.borrow_and_update().clone());
            if now.zip(then).is_some_and(|(secret, configuration)| is_trusted(&secret, &configuration)) {
                return;
            }
            // The senders live in `self`, so that neither can fail.
            tokio::select! {
                _ = secret.changed() => {}
                _ = configuration.changed() => {}
            }
        }
    }
}

fn is_trusted(secret: &Secret, configuration: &MutatingWebhookConfiguration) -> bool {
    let material = secret.data.as_ref().and_then(|data| Material::from_data(data).ok());
    material
        .is_some_and(|material| bundle::contains_authority(configuration, &material.authority.certificate))
}

async fn follow<K>(api: Api<K>, name: &str, mut take: impl FnMut(Option<K>))
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut versions = pin!(watcher::watch_object(api, name).backoff(Pauses::default()));
    while let Some(version) = versions.next().await {
        match version {
            Ok(version) => take(version),
            Err(error) => {
                let kind = K::kind(&());
                warn!(%kind, name, error = &error as &dyn std::error::Error, "watch failed, trying again");
            }
        }
    }
}
