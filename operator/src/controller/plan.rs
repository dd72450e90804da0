//! One policy and the world -> the objects it needs, those it no longer needs, what to say about it. Pure; no client
//! required.
//!
//! The ConfigMap depends on no pod, so that policy and pods may come in one `kubectl apply`. A policy that is not accepted
//! changes nothing: its pods keep the last good configuration.

use crds::{
    names,
    policy::{PodCounts, SidecarPolicy},
};
use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{
    cache::Key,
    conditions::{Truth, Verdict, Verdicts},
    counts,
    facts::PolicyFact,
    objects::{Desired, Kind},
    resolve::{Problem, resolve},
    world::World,
};
use crate::inject::Settings;

/// A ConfigMap may have 1 MiB, of which metadata and a future second version take their part.
const LARGEST_CONFIGURATION: usize = 900 * 1024;

/// Names go into labels, which hold no more.
const LONGEST_POLICY_NAME: usize = 63;

/// What does not change while the operator runs.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub settings: Settings,
    /// Whether the API server has discovery.k8s.io/v1; else the pods read core/v1 Endpoints.
    pub endpoint_slices: bool,
}

/// What is to be done for a policy.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    /// In the order in which they are to be applied.
    pub apply: Vec<Desired>,
    /// The policy's own objects that it no longer needs.
    pub remove: Vec<Stale>,
    pub verdicts: Verdicts,
    pub pods: PodCounts,
}

/// An object to delete, if it still is the one that was seen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Stale {
    pub kind: Kind,
    pub key: Key,
    pub uid: String,
}

/// Plans for one policy.
pub(super) fn plan(fact: &PolicyFact, world: &World, surroundings: &Surroundings) -> Plan {
    if fact.key.name.len() > LONGEST_POLICY_NAME {
        let message = format!(
            "the policy's name is longer than {LONGEST_POLICY_NAME} characters, which labels cannot hold: create the policy \
             under a shorter name"
        );
        return refused("NameTooLong", message, PodCounts::default());
    }
    match &fact.policy {
        Ok(policy) => plan_readable(fact, policy, world, surroundings),
        Err(error) => {
            let message = format!(
                "this release of the operator cannot read the policy ({error}): correct the policy, or upgrade the operator"
            );
            refused("Unreadable", message, PodCounts::default())
        }
    }
}

fn plan_readable(
    fact: &PolicyFact,
    policy: &SidecarPolicy,
    world: &World,
    surroundings: &Surroundings,
) -> Plan {
    let pods = counts::count(&fact.key, policy, world, &surroundings.settings);
    let resolution = resolve(&fact.key, policy, world);
    let configuration = match serde_yaml::to_string(&resolution.config) {
        Ok(configuration) => configuration,
        Err(error) => {
            return refused("Unwritable", format!("the configuration cannot be written: {error}"), pods);
        }
    };
    if configuration.len() > LARGEST_CONFIGURATION {
        let message = format!(
            "the configuration has {} KiB and a ConfigMap takes {}: spread listeners and addresses over several policies",
            configuration.len().div_ceil(1024),
            LARGEST_CONFIGURATION / 1024
        );
        return refused("TooLarge", message, pods);
    }
    let apply = objects(&fact.key, configuration, &resolution.slices_of, world, surroundings);
    Plan { remove: unneeded(&fact.key, &apply, world), apply, verdicts: accepted(&resolution.problems), pods }
}

/// ConfigMap, then Roles, then RoleBindings.
fn objects(
    policy: &Key,
    configuration: String,
    slices_of: &std::collections::BTreeSet<String>,
    world: &World,
    surroundings: &Surroundings,
) -> Vec<Desired> {
    let own = Key::new(&policy.namespace, names::policy_object(&policy.name));
    let mut own_rules = vec![read("", "configmaps", Some(own.name.clone()))];
    let mut roles = Vec::new();
    for namespace in slices_of {
        let rule = read_endpoints(surroundings);
        if *namespace == policy.namespace {
            own_rules.push(rule);
        } else {
            let name = names::exported_object(&policy.namespace, &policy.name);
            roles.push((Key::new(namespace, name), vec![rule]));
        }
    }
    roles.insert(0, (own.clone(), own_rules));

    let accounts = counts::service_accounts(policy, world);
    let mut objects = vec![Desired::config_map(&own, policy, configuration)];
    let bindings: Vec<Desired> = roles
        .iter()
        .filter(|_| !accounts.is_empty())
        .map(|(key, _)| Desired::role_binding(key, policy, accounts.iter().cloned()))
        .collect();
    objects.extend(roles.into_iter().map(|(key, rules)| Desired::role(&key, policy, rules)));
    objects.extend(bindings);
    objects
}

/// Everything that carries the policy's labels and is not in `needed`, rights first.
fn unneeded(policy: &Key, needed: &[Desired], world: &World) -> Vec<Stale> {
    let is_needed =
        |kind: Kind, key: &Key| needed.iter().any(|object| object.kind() == kind && object.key() == *key);
    let mut stale: Vec<Stale> = Kind::ALL
        .into_iter()
        .rev()
        .flat_map(|kind| {
            world
                .owned(kind)
                .all()
                .into_iter()
                .filter(move |(key, fact)| fact.policy == *policy && !is_needed(kind, key))
                .map(move |(key, fact)| Stale { kind, key, uid: fact.uid.clone() })
        })
        .collect();
    stale.sort_by(|a, b| (b.kind, &a.key).cmp(&(a.kind, &b.key)));
    stale
}

fn read_endpoints(surroundings: &Surroundings) -> PolicyRule {
    if surroundings.endpoint_slices {
        read("discovery.k8s.io", "endpointslices", None)
    } else {
        read("", "endpoints", None)
    }
}

fn read(group: &str, resource: &str, name: Option<String>) -> PolicyRule {
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(vec![resource.to_owned()]),
        resource_names: name.map(|name| vec![name]),
        verbs: ["get", "list", "watch"].map(str::to_owned).into(),
        non_resource_urls: None,
    }
}

fn accepted(problems: &[Problem]) -> Verdicts {
    let accepted = Verdict::new(Truth::True, "Accepted", "the policy is valid");
    let Some(first) = problems.first() else {
        return Verdicts {
            accepted,
            resolved: Verdict::new(
                Truth::True,
                "Resolved",
                "everything that the policy names exists and consents",
            ),
            ready: Verdict::new(Truth::True, "Applied", "configuration and rights are in place"),
        };
    };
    let messages: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
    let message = "the configuration is in place and its listeners answer 503 where no backend resolves: see ResolvedRefs";
    Verdicts {
        accepted,
        resolved: Verdict::new(Truth::False, first.reason, messages.join("; ")),
        ready: Verdict::new(Truth::False, "UnresolvedRefs", message),
    }
}

fn refused(reason: &'static str, message: String, pods: PodCounts) -> Plan {
    let verdicts = Verdicts {
        accepted: Verdict::new(Truth::False, reason, message),
        resolved: Verdict::new(Truth::Unknown, "NotAccepted", "not looked at: see Accepted"),
        ready: Verdict::new(
            Truth::False,
            "NotAccepted",
            "the last accepted configuration stays: see Accepted",
        ),
    };
    Plan { apply: Vec::new(), remove: Vec::new(), verdicts, pods }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
