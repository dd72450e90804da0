//! Conditions and counts -> the policy's status, and Events on transitions. Client required.
//!
//! At most one write in 5 s a policy. The first comes at once; what changes within the 5 s is written at their end. The
//! conditions of other writers stay, since only our own are applied.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use crds::policy::{SidecarPolicy, SidecarPolicyStatus};
use k8s_openapi::{
    api::core::v1::ObjectReference, apimachinery::pkg::apis::meta::v1::Condition, jiff::Timestamp,
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    core::DeserializeGuard,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;
use tokio::time::Instant;
use tracing::warn;

use super::{
    FIELD_MANAGER,
    cache::Key,
    conditions::{Verdicts, conditions, transitions},
    facts::PolicyFact,
    plan::Plan,
};

/// Least time between two writes of one policy's status.
const INTERVAL: Duration = Duration::from_secs(5);

/// Writes status and Events.
pub(super) struct StatusWriter {
    client: Client,
    recorder: Recorder,
    written: Mutex<HashMap<Key, Written>>,
}

#[derive(Clone)]
struct Written {
    uid: String,
    at: Instant,
    status: SidecarPolicyStatus,
}

impl StatusWriter {
    pub(super) fn new(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: FIELD_MANAGER.to_owned(), instance: Some(instance) };
        Self { recorder: Recorder::new(client.clone(), reporter), client, written: Mutex::default() }
    }

    /// Writes what is new. Returns when to come again, where it is too early to write or to know.
    pub(super) async fn write(
        &self,
        fact: &PolicyFact,
        plan: &Plan,
        verdicts: &Verdicts,
    ) -> Result<Option<Duration>, kube::Error> {
        let written = self.last(fact);
        let observed = fact.status().or(written.as_ref().map(|written| &written.status));
        let previous = match &written {
            // The watch may not show our last write yet.
            Some(written) if written.at.elapsed() < INTERVAL => Some(&written.status),
            _ => observed,
        };
        let previous = previous.map(|status| status.conditions.as_slice()).unwrap_or_default();
        let status = SidecarPolicyStatus {
            observed_generation: Some(fact.generation),
            conditions: conditions(previous, verdicts, fact.generation, Timestamp::now()),
            pods: plan.pods,
        };
        if observed.is_some_and(|observed| is_told(observed, &status)) {
            return Ok(None);
        }
        if let Some(written) = &written
            && let Some(wait) = INTERVAL.checked_sub(written.at.elapsed()).filter(|wait| !wait.is_zero())
        {
            return Ok(Some(wait));
        }
        self.remember(fact, &status);
        self.patch(fact, &status).await?;
        for condition in transitions(previous, &status.conditions) {
            self.tell(fact, condition).await;
        }
        Ok(None)
    }

    /// Records that a hand's edit was undone.
    pub(super) async fn tell_repair(&self, fact: &PolicyFact, what: &str) {
        let note =
            format!("{what} was changed or deleted by someone else and is restored: edit the policy instead");
        self.publish(fact, EventType::Warning, "Repaired", note).await;
    }

    /// Forgets policies that are gone.
    pub(super) fn retain(&self, exists: impl Fn(&Key) -> bool) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| exists(key));
    }

    fn last(&self, fact: &PolicyFact) -> Option<Written> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.get(&fact.key).filter(|written| written.uid == fact.uid).cloned()
    }

    /// Remembered before the write: one that fails counts too, or an API server in trouble would get more of them.
    fn remember(&self, fact: &PolicyFact, status: &SidecarPolicyStatus) {
        let written = Written { uid: fact.uid.clone(), at: Instant::now(), status: status.clone() };
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(fact.key.clone(), written);
    }

    async fn patch(&self, fact: &PolicyFact, status: &SidecarPolicyStatus) -> Result<(), kube::Error> {
        let body = json!({
            "apiVersion": SidecarPolicy::api_version(&()),
            "kind": SidecarPolicy::kind(&()),
            // The uid keeps the status off a policy of the same name that has come since.
            "metadata": {"name": fact.key.name, "namespace": fact.key.namespace, "uid": fact.uid},
            "status": status,
        });
        let api =
            Api::<DeserializeGuard<SidecarPolicy>>::namespaced(self.client.clone(), &fact.key.namespace);
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        match api.patch_status(&fact.key.name, &parameters, &Patch::Apply(body)).await {
            Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
            patched => patched.map(drop),
        }
    }

    async fn tell(&self, fact: &PolicyFact, condition: &Condition) {
        let type_ = if condition.status == "True" { EventType::Normal } else { EventType::Warning };
        let reason = format!("{}{}", condition.type_, condition.status);
        let note = format!("{}: {}", condition.reason, condition.message);
        self.publish(fact, type_, &reason, note).await;
    }

    async fn publish(&self, fact: &PolicyFact, type_: EventType, reason: &str, mut note: String) {
        // The API takes 1 KiB.
        let end =
            (0..=note.len().min(1024)).rev().find(|end| note.is_char_boundary(*end)).unwrap_or_default();
        note.truncate(end);
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(note),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        let regarding = ObjectReference {
            api_version: Some(SidecarPolicy::api_version(&()).into_owned()),
            kind: Some(SidecarPolicy::kind(&()).into_owned()),
            name: Some(fact.key.name.clone()),
            namespace: Some(fact.key.namespace.clone()),
            uid: Some(fact.uid.clone()),
            ..ObjectReference::default()
        };
        if let Err(error) = self.recorder.publish(&event, &regarding).await {
            warn!(policy = %fact.key, error = &error as &dyn std::error::Error, "an Event could not be written");
        }
    }
}

/// Whether `observed` says all that `status` says; conditions of other writers may stand beside ours.
fn is_told(observed: &SidecarPolicyStatus, status: &SidecarPolicyStatus) -> bool {
    observed.observed_generation == status.observed_generation
        && observed.pods == status.pods
        && status.conditions.iter().all(|condition| observed.conditions.contains(condition))
}
