//! Who leads: at most one replica, by a Lease.
//!
//! A replica that cannot renew gives up leading before it asks again. On shutdown the Lease is released, so that the next
//! one need not wait for its end.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long a replica that vanished is waited for, in seconds.
const DURATION: u64 = 12;

/// How long before its end the Lease is renewed, in seconds.
const GRACE: u64 = 6;

/// Between two attempts after an error.
const RETRY: Duration = Duration::from_secs(1);

/// Longest the release may take at shutdown.
const RELEASE: Duration = Duration::from_secs(3);

/// Why the Lease is not to be had at the moment.
#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("the Lease could not be created")]
    Create(#[source] kube::Error),
    #[error("the Lease could not be held")]
    Hold(#[from] LeaseManagerError),
}

/// A Lease and who asks for it.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub namespace: String,
    pub lease: String,
    /// Of this replica alone: the pod's name.
    pub identity: String,
    /// The Lease goes with the Deployment.
    pub owner: Option<OwnerReference>,
}

impl Candidate {
    /// Tells `leading` whether this replica leads, until `shutdown`.
    pub async fn run(self, client: Client, leading: watch::Sender<bool>, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            if let Err(error) = self.hold(&client, &leading, &shutdown).await {
                warn!(error = &error as &dyn std::error::Error, "not leading, trying again");
            }
            leading.send_replace(false);
            let _ = tokio::time::timeout(RETRY, shutdown.cancelled()).await;
        }
    }

    async fn hold(
        &self,
        client: &Client,
        leading: &watch::Sender<bool>,
        shutdown: &CancellationToken,
    ) -> Result<(), LeaseError> {
        self.create(client).await.map_err(LeaseError::Create)?;
        let manager = LeaseManagerBuilder::new(client.clone(), &self.lease)
            .with_namespace(&self.namespace)
            .with_identity(&self.identity)
            .with_duration(DURATION)
            .with_grace(GRACE)
            .build()
            .await?;
        loop {
            tokio::select! {
                changed = manager.changed() => {
                    leading.send_replace(changed?);
                }
                () = shutdown.cancelled() => {
                    leading.send_replace(false);
                    return release(&manager).await;
                }
            }
        }
    }

    async fn create(&self, client: &Client) -> Result<(), kube::Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.lease.clone()),
                owner_references: self.owner.clone().map(|owner| vec![owner]),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        let api = Api::<Lease>::namespaced(client.clone(), &self.namespace);
        match api.create(&PostParams::default(), &lease).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
            created => created.map(drop),
        }
    }
}

async fn release(manager: &LeaseManager) -> Result<(), LeaseError> {
    match tokio::time::timeout(RELEASE, manager.release()).await {
        Ok(released) => Ok(released?),
        // It ends by itself.
        Err(_) => Ok(()),
    }
}
