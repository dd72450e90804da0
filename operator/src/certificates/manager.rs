//! The one writer of the Secret and of the caBundle. Client required; what to do is [`plan`](super::plan)'s to say.
//!
//! Works while this replica holds the lease. Secret and configuration are read afresh for each step, and the Secret is
//! written only over the version that was read: a replica that has lost the lease and does not know it writes nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use k8s_openapi::{
    api::{admissionregistration::v1::MutatingWebhookConfiguration, core::v1::Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, api::PostParams};
use rustls::pki_types::{CertificateDer, pem::PemObject};
use tokio::{sync::watch, time::Instant};
use tracing::{info, warn};

use super::{
    Watched, bundle,
    material::{Material, MaterialError, Validities},
    plan::{Observed, Publication, Step, plan, tick},
    replicas,
};

/// Owner of the Secret's fields.
const FIELD_MANAGER: &str = "sidecar-operator";

const RETRY: Duration = Duration::from_secs(1);

/// Until the first certificate has come back through the watch and is served.
const NOT_YET: Duration = Duration::from_millis(200);

/// Longest a step may take: a few requests and handshakes.
const PATIENCE: Duration = Duration::from_secs(20);

/// Why a step was not taken. Each is tried again.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the API server refused")]
    Api(#[from] kube::Error),
    #[error(transparent)]
    Material(#[from] MaterialError),
    #[error("the step was not done within {PATIENCE:?}")]
    Late,
}

/// Where everything is.
#[derive(Debug, Clone)]
pub struct Names {
    pub namespace: String,
    pub secret: String,
    pub service: String,
    pub configuration: String,
}

impl Names {
    /// What the webhook's Service is called by API servers.
    fn dns(&self) -> Vec<String> {
        let short = format!("{}.{}.svc", self.service, self.namespace);
        vec![short.clone(), format!("{short}.cluster.local")]
    }
}

/// Keeps certificates and caBundle current.
pub struct Manager {
    client: Client,
    names: Names,
    validities: Validities,
    /// The Secret goes with the Deployment.
    owner: Option<OwnerReference>,
    /// What this replica serves.
    serving: watch::Receiver<Option<CertificateDer<'static>>>,
    /// The bundle that was last seen in the configuration, and since when.
    published: Option<(String, Instant)>,
}

impl Manager {
    pub fn new(
        client: Client,
        names: Names,
        validities: Validities,
        owner: Option<OwnerReference>,
        serving: watch::Receiver<Option<CertificateDer<'static>>>,
    ) -> Self {
        Self { client, names, validities, owner, serving, published: None }
    }

    /// Works while `leading` is true. A change of what is watched wakes it.
    pub async fn run(mut self, mut leading: watch::Receiver<bool>, watched: &Watched) {
        let (mut secret, mut configuration) = (watched.secret.subscribe(), watched.configuration.subscribe());
        loop {
            if leading.wait_for(|leading| *leading).await.is_err() {
                return;
            }
            secret.mark_unchanged();
            configuration.mark_unchanged();
            let wait = match tokio::time::timeout(PATIENCE, self.step()).await.unwrap_or(Err(StepError::Late))
            {
                Ok(wait) => wait,
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "certificates are not as they should be, trying again"
                    );
                    RETRY
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // Their senders live in `watched`, so that these cannot fail.
                _ = secret.changed() => {}
                _ = configuration.changed() => {}
                // What was seen before the lease was lost says nothing about the time without it.
                _ = leading.changed() => self.published = None,
            }
        }
    }

    /// Takes one step. Returns how long to wait before the next.
    async fn step(&mut self) -> Result<Duration, StepError> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.names.namespace);
        let secret = secrets.get_opt(&self.names.secret).await?;
        let configurations = Api::<MutatingWebhookConfiguration>::all(self.client.clone());
        let configuration = configurations.get_opt(&self.names.configuration).await?;
        let material = secret.as_ref().and_then(|secret| self.read(secret));
        let publication = self.publication(configuration.as_ref(), material.as_ref());
        let names = self.names.dns();
        let now = now();
        let step = plan(material.as_ref(), Observed { names: &names, publication }, self.validities, now);
        let again = Duration::ZERO;
        let changed = match (step, &material) {
            (Step::Wait(seconds), _) => {
                return Ok(Duration::from_secs(u64::try_from(seconds).unwrap_or(1)));
            }
            (Step::Create, _) | (_, None) => Material::create(&names, self.validities, now)?,
            // No other replica is ready, and asked, before it serves too.
            (Step::Publish, Some(_)) if self.serving.borrow().is_none() => return Ok(NOT_YET),
            (Step::Publish, Some(material)) => {
                if let Some(configuration) = &configuration {
                    bundle::publish(&self.client, configuration, &material.bundle()).await?;
                    info!(configuration = self.names.configuration, "the caBundle is up to date");
                }
                return Ok(again);
            }
            (Step::RenewLeaf, Some(material)) => material.with_leaf(&names, self.validities, now)?,
            (Step::BeginRotation, Some(material)) => material.with_next(self.validities, now)?,
            (Step::Promote, Some(material)) => material.promoted(&names, self.validities, now)?,
            (Step::DropOldOnceServed, Some(material)) => {
                if !self.all_serve(material).await? {
                    return Ok(
                        Duration::from_secs(u64::try_from(tick(self.validities)).unwrap_or(1)).min(RETRY)
                    );
                }
                material.without_old()
            }
            (Step::DropOld, Some(material)) => material.without_old(),
        };
        self.write(&secrets, secret, &changed).await?;
        info!(secret = self.names.secret, step = ?step, "certificates changed");
        Ok(again)
    }

    /// A Secret that cannot be read counts as none, and is written anew.
    fn read(&self, secret: &Secret) -> Option<Material> {
        match Material::from_data(secret.data.as_ref()?) {
            Ok(material) => Some(material),
            Err(error) => {
                warn!(
                    secret = self.names.secret,
                    error = &error as &dyn std::error::Error,
                    "unusable, written anew"
                );
                None
            }
        }
    }

    fn publication(
        &mut self,
        configuration: Option<&MutatingWebhookConfiguration>,
        material: Option<&Material>,
    ) -> Publication {
        let (Some(configuration), Some(material)) = (configuration, material) else {
            self.published = None;
            return Publication::Impossible;
        };
        let wanted = material.bundle();
        if !bundle::is_published(configuration, &wanted) {
            self.published = None;
            return Publication::Different;
        }
        let since = match &self.published {
            Some((bundle, since)) if *bundle == wanted => *since,
            _ => Instant::now(),
        };
        self.published = Some((wanted, since));
        Publication::Current(i64::try_from(since.elapsed().as_secs()).unwrap_or(i64::MAX))
    }

    async fn all_serve(&self, material: &Material) -> Result<bool, StepError> {
        let Ok(leaf) = CertificateDer::from_pem_slice(material.leaf.certificate.as_bytes()) else {
            return Ok(false);
        };
        Ok(replicas::all_serve(&self.client, &self.names.namespace, &self.names.service, leaf).await?)
    }

    /// Creates the Secret, or replaces the version that was read.
    async fn write(
        &self,
        api: &Api<Secret>,
        read: Option<Secret>,
        material: &Material,
    ) -> Result<(), StepError> {
        let parameters =
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match read {
            Some(mut secret) => {
                secret.data = Some(material.to_data());
                api.replace(&self.names.secret, &parameters, &secret).await?;
            }
            None => {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(self.names.secret.clone()),
                        owner_references: self.owner.clone().map(|owner| vec![owner]),
                        ..ObjectMeta::default()
                    },
                    data: Some(material.to_data()),
                    type_: Some("Opaque".to_owned()),
                    ..Secret::default()
                };
                api.create(&parameters, &secret).await?;
            }
        }
        Ok(())
    }
}

/// The wall clock in seconds: certificates are valid by it, whatever this process has slept through.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
