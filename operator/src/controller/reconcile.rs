//! One policy: plan -> apply -> status; and the sweep. Client required, through [`apply`](super::apply) and
//! [`status`](super::status) alone.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use kube::Client;
use tokio::time::Instant;
use tracing::{debug, info};

use super::{
    apply::{Applier, ApplyError, Outcome},
    cache::Key,
    conditions::{Truth, Verdict, Verdicts},
    facts::PolicyFact,
    live,
    objects::Kind,
    plan::{Plan, Stale, Surroundings, plan},
    status::StatusWriter,
    sweep::{Sweeper, is_withdrawn},
    world::World,
};

/// When to look again where a pod uses something that the watch has not shown.
const UNSEEN: Duration = Duration::from_secs(10);

/// Why a policy is not done. Each is tried again with back-off.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the pods that may use what is to be deleted could not be listed")]
    Pods(#[source] kube::Error),
    #[error("the status could not be written")]
    Status(#[source] kube::Error),
}

/// Does the work of a leading controller.
pub struct Reconciler {
    pub world: Arc<World>,
    client: Client,
    surroundings: Surroundings,
    applier: Applier,
    status: StatusWriter,
}

impl Reconciler {
    /// `instance` names this replica in Events.
    pub fn new(client: Client, world: Arc<World>, surroundings: Surroundings, instance: String) -> Self {
        Self {
            world,
            surroundings,
            applier: Applier::new(client.clone()),
            status: StatusWriter::new(client.clone(), instance),
            client,
        }
    }

    /// Brings one policy up to date. Returns when to come again, if no change comes first.
    pub(super) async fn policy(&self, key: &Key) -> Result<Option<Duration>, ReconcileError> {
        let Some(fact) = self.world.policies.get(key) else { return Ok(None) };
        let plan = plan(&fact, &self.world, &self.surroundings);
        let applied = self.apply(&fact, &plan).await;
        let verdicts = match &applied {
            Ok(()) => plan.verdicts.clone(),
            Err(error) => failed(&plan.verdicts, error),
        };
        let again = self.status.write(&fact, &plan, &verdicts).await.map_err(ReconcileError::Status)?;
        applied?;
        Ok(again)
    }

    /// Deletes what no policy and no pod needs. Returns when to look again, if no change comes first.
    pub(super) async fn sweep(&self, sweeper: &mut Sweeper) -> Result<Option<Duration>, ReconcileError> {
        let (due, next) = sweeper.due(&self.world, Instant::now());
        let mut result = Ok(next);
        let mut used = HashMap::new();
        for stale in &due {
            match self.delete_unused(stale, &mut used).await {
                Ok(true) => {
                    info!(kind = %stale.kind, object = %stale.key, "deleted: nobody needs it any more")
                }
                Ok(false) => {
                    debug!(kind = %stale.kind, object = %stale.key, "kept: a pod uses it");
                    // The watch will show the pod, unless it ends before.
                    result = result.map(|next| Some(next.map_or(UNSEEN, |next| next.min(UNSEEN))));
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        self.applier.retain(&self.world);
        self.status.retain(|policy| self.world.policies.get(policy).is_some());
        result
    }

    /// Deletes an object unless the API server shows a pod that uses it and is entitled to. `used` is what it has told of
    /// policies in this sweep.
    async fn delete_unused(
        &self,
        stale: &Stale,
        used: &mut HashMap<Key, bool>,
    ) -> Result<bool, ReconcileError> {
        let fact = self.world.owned(stale.kind).get(&stale.key);
        if let Some(fact) = fact.filter(|fact| !is_withdrawn(&self.world, &stale.key, &fact.policy)) {
            let is_used = match used.get(&fact.policy) {
                Some(is_used) => *is_used,
                None => live::is_used(&self.client, &fact.policy).await.map_err(ReconcileError::Pods)?,
            };
            used.insert(fact.policy.clone(), is_used);
            if is_used {
                return Ok(false);
            }
        }
        self.applier.delete(stale).await?;
        Ok(true)
    }

    /// Rights that are no longer needed go first. An object that fails keeps no other from being applied, except that a
    /// Role which is not the operator's is not granted to anyone. Returns the first error.
    async fn apply(&self, fact: &PolicyFact, plan: &Plan) -> Result<(), ApplyError> {
        let mut result = Ok(());
        for stale in &plan.remove {
            match self.applier.delete(stale).await {
                Ok(()) => {
                    info!(policy = %fact.key, kind = %stale.kind, object = %stale.key, "deleted: the policy no longer needs it");
                }
                Err(error) => result = result.and(Err(error)),
            }
        }
        let mut foreign = HashSet::new();
        for desired in &plan.apply {
            let (kind, key) = (desired.kind(), desired.key());
            if kind == Kind::RoleBinding && foreign.contains(&key) {
                continue;
            }
            match self.applier.apply(&fact.key, desired, &self.world).await {
                Ok(Outcome::Unchanged) => {}
                Ok(Outcome::Written) => debug!(policy = %fact.key, %kind, object = %key, "applied"),
                Ok(Outcome::Repaired) => {
                    info!(policy = %fact.key, %kind, object = %key, "repaired");
                    self.status.tell_repair(fact, &format!("{kind} {key}")).await;
                }
                Err(error) => {
                    if kind == Kind::Role && matches!(error, ApplyError::Foreign { .. }) {
                        foreign.insert(key);
                    }
                    result = result.and(Err(error));
                }
            }
        }
        result
    }
}

fn failed(verdicts: &Verdicts, error: &ApplyError) -> Verdicts {
    let reason = match error {
        ApplyError::Foreign { .. } => "NameTaken",
        ApplyError::Apply { .. } | ApplyError::Delete { .. } => "ApplyFailed",
    };
    Verdicts { ready: Verdict::new(Truth::False, reason, error.to_string()), ..verdicts.clone() }
}
