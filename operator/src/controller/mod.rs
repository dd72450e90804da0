//! observe -> plan (pure) -> apply -> status, for every policy that a change concerns.
//!
//! Watches run in every replica; only the holder of the lease applies, reports and sweeps. Losing the lease stops it at
//! once, and a write that was under way does no harm: every one of them is idempotent.
//!
//! # Rights
//! No wildcard, no `escalate`, no `bind`: what the operator grants to pods it holds itself.
//!
//! | group | resources | verbs | why |
//! |---|---|---|---|
//! | sidecar.io | sidecarpolicies | get list watch | observe; the webhook's live read |
//! | sidecar.io | sidecarpolicies/status | patch | status |
//! | (core) | configmaps | get list watch create patch delete | configuration; reading is granted on, by name |
//! | (core) | endpoints | get list watch | granted on, where discovery.k8s.io/v1 is absent |
//! | discovery.k8s.io | endpointslices | get list watch | granted on; the operator's own replicas |
//! | rbac.authorization.k8s.io | roles, rolebindings | get list watch create patch delete | rights of the pods |
//! | (core) | pods, services, namespaces, nodes | get list watch | observe; pods and namespaces as metadata |
//! | events.k8s.io | events | create patch | Events |
//! | admissionregistration.k8s.io | mutatingwebhookconfigurations, its own by name | get list watch patch | caBundle |
//!
//! In the operator's namespace:
//!
//! | group | resources | verbs | why |
//! |---|---|---|---|
//! | (core) | secrets | create | creation cannot be narrowed to a name |
//! | (core) | secrets, the certificates' by name | get list watch update | certificates |
//! | coordination.k8s.io | leases | create | as above |
//! | coordination.k8s.io | leases, its own by name | get patch update | one writer |
//! | apps | deployments, its own by name | get | owner of Secret and Lease |

mod apply;
mod cache;
mod checks;
mod conditions;
mod counts;
mod facts;
mod l4;
pub mod lease;
mod live;
mod objects;
mod observe;
mod plan;
mod reconcile;
mod resolve;
mod source;
mod stack;
mod status;
mod sweep;
#[cfg(test)]
mod testing;
mod tls;
mod world;

use std::{
    collections::{HashMap, HashSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, channel::mpsc};
use kube::runtime::scheduler::{ScheduleRequest, scheduler};
pub use observe::watches;
pub use plan::Surroundings;
pub use reconcile::Reconciler;
pub use source::Policies;
use tokio::{sync::watch, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};
pub use world::World;

use cache::Key;
use reconcile::ReconcileError;
use sweep::Sweeper;

/// Owner of the fields that the controller applies.
pub const FIELD_MANAGER: &str = "sidecar-operator";

/// Policies worked on at once.
const CONCURRENCY: usize = 8;

/// Changes that come within this time are looked at together.
const BATCH: Duration = Duration::from_millis(100);

/// Longest a policy or a sweep may take: each is a handful of requests.
const PATIENCE: Duration = Duration::from_secs(60);

/// Back-off of a policy that cannot be applied.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Controls the policies while `leading` is true, until `shutdown`.
pub async fn run(
    reconciler: Arc<Reconciler>,
    mut leading: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let world = Arc::clone(&reconciler.world);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            changed = leading.wait_for(|leading| *leading) => if changed.is_err() { return },
            () = forget(&world) => {}
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = world.synced() => {}
        }
        info!("leading: policies are controlled from here");
        world.work.take_now();
        world.everything_changed();
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = leading.wait_for(|leading| !*leading) => info!("no longer leading"),
            () = lead(&reconciler) => return,
        }
    }
}

/// Drops what is pending for as long as another replica leads: a new leader looks at everything anew.
async fn forget(world: &World) {
    loop {
        world.work.take().await;
    }
}

/// What is scheduled: a policy, or the sweep.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Job {
    Policy(Key),
    Sweep,
}

/// Runs jobs when they are due, each at most once at a time. Dropped to stop: its tasks go with it.
async fn lead(reconciler: &Arc<Reconciler>) {
    let (requests, receiver) = mpsc::unbounded();
    let mut due = pin!(scheduler(receiver));
    let mut tasks: JoinSet<(Job, Option<Sweeper>, Next)> = JoinSet::new();
    let mut running: HashSet<Job> = HashSet::new();
    let mut failures: HashMap<Job, u32> = HashMap::new();
    let mut sweeper = Some(Sweeper::default());
    // The queue keeps one entry a job, so that it is bounded by the policies.
    let schedule = |job: Job, delay: Duration| {
        let _ = requests.unbounded_send(ScheduleRequest { message: job, run_at: Instant::now() + delay });
    };
    loop {
        tokio::select! {
            Some(job) = async {
                due.as_mut().hold_unless(|job| running.len() < CONCURRENCY && !running.contains(job)).next().await
            } => {
                running.insert(job.clone());
                let reconciler = Arc::clone(reconciler);
                match &job {
                    Job::Policy(key) => {
                        let key = key.clone();
                        tasks.spawn(async move { (job, None, policy(&reconciler, &key).await) });
                    }
                    Job::Sweep => {
                        let mut sweeper = sweeper.take().unwrap_or_default();
                        tasks.spawn(async move {
                            let next = sweep(&reconciler, &mut sweeper).await;
                            (job, Some(sweeper), next)
                        });
                    }
                }
            }
            Some(done) = tasks.join_next() => {
                let (job, returned, next) = match done {
                    Ok(done) => done,
                    // A bug: the process ends, and another replica takes over.
                    Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
                    Err(_) => continue,
                };
                sweeper = returned.or(sweeper);
                running.remove(&job);
                match next {
                    Next::Wait => _ = failures.remove(&job),
                    Next::After(delay) => {
                        failures.remove(&job);
                        schedule(job, delay);
                    }
                    Next::Retry => {
                        let failed = failures.entry(job.clone()).or_insert(0);
                        let delay = FIRST_RETRY.saturating_mul(1 << (*failed).min(6)).min(LAST_RETRY);
                        *failed += 1;
                        schedule(job, delay);
                    }
                }
            }
            pending = reconciler.world.work.take() => {
                for key in pending.policies {
                    schedule(Job::Policy(key), BATCH);
                }
                if pending.sweep {
                    schedule(Job::Sweep, BATCH);
                }
            }
        }
    }
}

/// When a job is due again, if no change comes first.
enum Next {
    Wait,
    After(Duration),
    Retry,
}

async fn policy(reconciler: &Reconciler, key: &Key) -> Next {
    match tokio::time::timeout(PATIENCE, reconciler.policy(key)).await {
        Ok(Ok(None)) => Next::Wait,
        Ok(Ok(Some(delay))) => Next::After(delay),
        Ok(Err(ReconcileError::Apply(error))) if error.is_of_ending_namespace() => {
            debug!(policy = %key, error = &error as &dyn std::error::Error, "policy is about to go");
            Next::Retry
        }
        Ok(Err(error)) => {
            warn!(policy = %key, error = &error as &dyn std::error::Error, "policy not applied, trying again");
            Next::Retry
        }
        Err(_) => {
            warn!(policy = %key, "policy not applied within {PATIENCE:?}, trying again");
            Next::Retry
        }
    }
}

async fn sweep(reconciler: &Reconciler, sweeper: &mut Sweeper) -> Next {
    match tokio::time::timeout(PATIENCE, reconciler.sweep(sweeper)).await {
        Ok(Ok(None)) => Next::Wait,
        Ok(Ok(Some(delay))) => Next::After(delay),
        Ok(Err(error)) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "not all unused objects were deleted, trying again"
            );
            Next::Retry
        }
        Err(_) => Next::Retry,
    }
}
