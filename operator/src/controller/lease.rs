//! Who leads: at most one replica, by a Lease.
//!
//! A replica that cannot renew gives up leading before it asks again, and before the Lease is another's: every request
//! ends within the [`GRACE`] that is left. On shutdown the Lease is released, so that the next
//! one need not wait for its end.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::Lease,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, Config, api::PostParams};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::warn;

/// How long a replica that vanished is waited for, in seconds.
const DURATION: u64 = 12;

/// How long before its end the Lease is renewed, in seconds.
const GRACE: u64 = 6;

/// Longest to connect, and longest to wait for the answer: together less than the grace.
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(3);

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

/// The same way to the API server, for requests about the Lease.
pub fn impatient(mut config: Config) -> Config {
    config.connect_timeout = Some(CONNECT);
    config.read_timeout = Some(ANSWER);
    config.write_timeout = Some(ANSWER);
    // Else the time between two renewals would count.
    config.reset_reader_on_write = true;
    // An attempt that failed is told at once, for leading hangs on it.
    config.default_retry = false;
    config
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
    /// Tells `leading` whether this replica leads, until `shutdown`. The `client` is of a
    /// [`impatient`] configuration.
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

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_renewal_that_is_not_answered_fails_while_the_lease_is_still_ours() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let config = impatient(Config::new(address.parse().unwrap()));
        let leases = Api::<Lease>::namespaced(Client::try_from(config).unwrap(), "ns");
        let asked = tokio::time::timeout(Duration::from_secs(GRACE), leases.get("lease")).await;
        assert!(asked.expect("it ends by itself").is_err());
        drop(listener);
    }
}
