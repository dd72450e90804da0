//! Desired objects -> API server. Client required.
//!
//! Nothing is written when nothing differs. Server-side apply is forced, but only on objects that are the operator's own:
//! a user's object of the same name is reported and left alone.

use std::{
    collections::HashMap,
    fmt::Debug,
    sync::{Mutex, PoisonError},
};

use crds::names::labels;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::ConfigMap,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    FIELD_MANAGER,
    cache::Key,
    objects::{Desired, Digest, Kind},
    plan::Stale,
    world::World,
};

/// Why an object is not as it should be.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    #[error("{kind} {key} exists and is not the operator's: delete or rename it, or rename the policy")]
    Foreign { kind: Kind, key: Key },
    #[error("{kind} {key} could not be applied: {source}")]
    Apply { kind: Kind, key: Key, source: kube::Error },
    #[error("{kind} {key} could not be deleted: {source}")]
    Delete { kind: Kind, key: Key, source: kube::Error },
}

impl ApplyError {
    /// The namespace is being deleted, and soon the policy with it: nobody has to do anything.
    pub(super) fn is_of_ending_namespace(&self) -> bool {
        let Self::Apply { source: kube::Error::Api(status), .. } = self else { return false };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Unchanged,
    Written,
    /// It had been as it should be, and someone else had changed or deleted it.
    Repaired,
}

/// Applies and deletes objects.
pub(super) struct Applier {
    client: Client,
    written: Mutex<HashMap<(Kind, Key), Written>>,
}

/// What was written last, and what the watch showed then: until it shows something else, it is merely late.
#[derive(Debug, Clone, PartialEq)]
struct Written {
    policy: Key,
    digest: Digest,
    over: Option<Digest>,
}

impl Applier {
    pub(super) fn new(client: Client) -> Self {
        Self { client, written: Mutex::default() }
    }

    /// Brings one object of a policy to its desired state.
    pub(super) async fn apply(
        &self,
        policy: &Key,
        desired: &Desired,
        world: &World,
    ) -> Result<Outcome, ApplyError> {
        let (kind, key, digest) = (desired.kind(), desired.key(), desired.digest());
        let observed = world.owned(kind).get(&key).map(|fact| fact.digest);
        if observed == Some(digest) {
            self.remember(kind, &key, Written { policy: policy.clone(), digest, over: observed });
            return Ok(Outcome::Unchanged);
        }
        match desired {
            Desired::ConfigMap(object) => self.write(kind, &key, &**object, observed.is_some()).await,
            Desired::Role(object) => self.write(kind, &key, &**object, observed.is_some()).await,
            Desired::RoleBinding(object) => self.write(kind, &key, &**object, observed.is_some()).await,
        }?;
        let before = self.remember(kind, &key, Written { policy: policy.clone(), digest, over: observed });
        let repaired = before.is_some_and(|before| before.digest == digest && before.over != observed);
        Ok(if repaired { Outcome::Repaired } else { Outcome::Written })
    }

    /// Deletes an object, if it still is the one that was seen. One that is gone is as good.
    pub(super) async fn delete(&self, stale: &Stale) -> Result<(), ApplyError> {
        let Stale { kind, key, uid } = stale;
        let deleted = match kind {
            Kind::ConfigMap => self.remove::<ConfigMap>(key, uid).await,
            Kind::Role => self.remove::<Role>(key, uid).await,
            Kind::RoleBinding => self.remove::<RoleBinding>(key, uid).await,
        };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(&(*kind, key.clone()));
        match deleted {
            // Not found: gone. Conflict: another object has taken its name, which the watch will show.
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            Err(source) => Err(ApplyError::Delete { kind: *kind, key: key.clone(), source }),
            Ok(()) => Ok(()),
        }
    }

    /// Forgets objects that are gone with their policy. Those of a policy that is there are still to be repaired.
    pub(super) fn retain(&self, world: &World) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).retain(|(kind, key), written| {
            world.policies.get(&written.policy).is_some() || world.owned(*kind).get(key).is_some()
        });
    }

    fn remember(&self, kind: Kind, key: &Key, written: Written) -> Option<Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert((kind, key.clone()), written)
    }

    async fn write<K>(&self, kind: Kind, key: &Key, object: &K, is_ours: bool) -> Result<(), ApplyError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + Serialize + DeserializeOwned,
    {
        let failed = |source| ApplyError::Apply { kind, key: key.clone(), source };
        let api = Api::<K>::namespaced(self.client.clone(), &key.namespace);
        if !is_ours {
            let existing = api.get_metadata_opt(&key.name).await.map_err(failed)?;
            if existing.is_some_and(|existing| !is_operators(&existing.metadata)) {
                return Err(ApplyError::Foreign { kind, key: key.clone() });
            }
        }
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch(&key.name, &parameters, &Patch::Apply(object)).await {
            // A RoleBinding's role cannot be changed: only a new object can have the right one.
            Err(kube::Error::Api(status)) if kind == Kind::RoleBinding && status.is_invalid() => {
                api.delete(&key.name, &DeleteParams::default()).await.map_err(failed)?;
                api.patch(&key.name, &parameters, &Patch::Apply(object)).await.map_err(failed)?;
                Ok(())
            }
            patched => patched.map(drop).map_err(failed),
        }
    }

    async fn remove<K>(&self, key: &Key, uid: &str) -> Result<(), kube::Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned,
    {
        let only = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let parameters = DeleteParams::default().preconditions(only);
        Api::<K>::namespaced(self.client.clone(), &key.namespace)
            .delete(&key.name, &parameters)
            .await
            .map(drop)
    }
}

/// An object is the operator's by its label, or by its record of writers where the label was taken away.
fn is_operators(metadata: &ObjectMeta) -> bool {
    let labelled = metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::MANAGED_BY))
        .is_some_and(|manager| manager == labels::MANAGER);
    let mut writers = metadata.managed_fields.iter().flatten();
    labelled || writers.any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::testing;

    #[test]
    fn what_fails_since_its_namespace_is_being_deleted_is_told_from_what_someone_must_mend() {
        let failed = |cause: &str| {
            let status = serde_json::json!({
                "status": "Failure", "code": 403, "reason": "Forbidden", "message": "forbidden",
                "details": {"causes": [{"reason": cause, "message": "", "field": "metadata.namespace"}]},
            });
            let source = kube::Error::Api(serde_json::from_value(status).unwrap());
            ApplyError::Apply { kind: Kind::ConfigMap, key: Key::new("a", "data"), source }
        };
        assert!(failed("NamespaceTerminating").is_of_ending_namespace());
        assert!(!failed("FieldValueInvalid").is_of_ending_namespace());
    }

    #[tokio::test]
    async fn what_was_written_is_forgotten_with_its_policy() {
        let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
        let (applier, world) = (Applier::new(Client::try_from(config).unwrap()), World::default());
        let (policy, object) = (Key::new("a", "data"), Key::new("a", "sidecar-data"));
        let written = Written { policy: policy.clone(), digest: Digest::default(), over: None };
        applier.remember(Kind::ConfigMap, &object, written);
        testing::policy(&world, "a", "data", "backends: [{addresses: ['10.0.0.1:80']}]");
        applier.retain(&world);
        assert_eq!(applier.written.lock().unwrap().len(), 1, "a deleted object is to be repaired");
        world.policies.set(policy, None);
        applier.retain(&world);
        assert!(applier.written.lock().unwrap().is_empty());
    }
}
