//! The objects that the controller applies, and the digest that tells whether one is as it should be.
//! No client required.
//!
//! The digest covers what the controller owns and nothing else: another manager's label or key is no difference, so that
//! nobody is fought over it, while an edit of ours is.

use std::fmt;

use crds::{
    config::VERSION,
    names::{self, labels},
};
use k8s_openapi::{
    api::{
        core::v1::ConfigMap,
        rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::cache::Key;

pub(super) type Digest = [u8; 32];

/// In the order in which they are applied: a right without the object that it is for would be of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ConfigMap,
    Role,
    RoleBinding,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::ConfigMap, Self::Role, Self::RoleBinding];
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Role => "Role",
            Self::RoleBinding => "RoleBinding",
        })
    }
}

/// An object as it should be.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Desired {
    ConfigMap(Box<ConfigMap>),
    Role(Box<Role>),
    RoleBinding(Box<RoleBinding>),
}

impl Desired {
    pub(super) fn config_map(key: &Key, policy: &Key, configuration: String) -> Self {
        Self::ConfigMap(Box::new(ConfigMap {
            metadata: metadata(key, policy),
            data: Some([(names::config_key(VERSION), configuration)].into()),
            ..ConfigMap::default()
        }))
    }

    pub(super) fn role(key: &Key, policy: &Key, rules: Vec<PolicyRule>) -> Self {
        Self::Role(Box::new(Role { metadata: metadata(key, policy), rules: Some(rules) }))
    }

    /// Binds the Role of the same name to ServiceAccounts of the policy's namespace.
    pub(super) fn role_binding(
        key: &Key,
        policy: &Key,
        service_accounts: impl IntoIterator<Item = String>,
    ) -> Self {
        let subjects = service_accounts
            .into_iter()
            .map(|name| Subject {
                kind: "ServiceAccount".to_owned(),
                name,
                namespace: Some(policy.namespace.clone()),
                api_group: None,
            })
            .collect();
        Self::RoleBinding(Box::new(RoleBinding {
            metadata: metadata(key, policy),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: key.name.clone(),
            },
            subjects: Some(subjects),
        }))
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::ConfigMap(_) => Kind::ConfigMap,
            Self::Role(_) => Kind::Role,
            Self::RoleBinding(_) => Kind::RoleBinding,
        }
    }

    pub(super) fn key(&self) -> Key {
        match self {
            Self::ConfigMap(object) => Key::of(&**object),
            Self::Role(object) => Key::of(&**object),
            Self::RoleBinding(object) => Key::of(&**object),
        }
    }

    pub(super) fn digest(&self) -> Digest {
        match self {
            Self::ConfigMap(object) => config_map_digest(object),
            Self::Role(object) => role_digest(object),
            Self::RoleBinding(object) => role_binding_digest(object),
        }
    }
}

pub(super) fn config_map_digest(object: &ConfigMap) -> Digest {
    let key = names::config_key(VERSION);
    digest(&object.metadata, &object.data.as_ref().and_then(|data| data.get(&key)))
}

pub(super) fn role_digest(object: &Role) -> Digest {
    digest(&object.metadata, &object.rules.as_deref().unwrap_or_default())
}

pub(super) fn role_binding_digest(object: &RoleBinding) -> Digest {
    digest(&object.metadata, &(&object.role_ref, object.subjects.as_deref().unwrap_or_default()))
}

fn digest(metadata: &ObjectMeta, content: &impl Serialize) -> Digest {
    let ours: Vec<Option<&String>> = [labels::MANAGED_BY, labels::POLICY, labels::POLICY_NAMESPACE]
        .iter()
        .map(|name| metadata.labels.as_ref().and_then(|labels| labels.get(*name)))
        .collect();
    // Text keys and plain values: this cannot fail, and a failure would only cause one more write.
    Sha256::digest(serde_json::to_vec(&(ours, content)).unwrap_or_default()).into()
}

fn metadata(key: &Key, policy: &Key) -> ObjectMeta {
    let labels = [
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::POLICY, &policy.name),
        (labels::POLICY_NAMESPACE, &policy.namespace),
    ];
    ObjectMeta {
        name: Some(key.name.clone()),
        namespace: Some(key.namespace.clone()),
        labels: Some(labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()),
        ..ObjectMeta::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_own_makes_a_difference() {
        let (key, policy) = (Key::new("ns", "sidecar-data"), Key::new("ns", "data"));
        let Desired::ConfigMap(ours) = Desired::config_map(&key, &policy, "http: []".to_owned()) else {
            panic!("not a ConfigMap")
        };
        let mut other = (*ours).clone();
        other.metadata.resource_version = Some("7".to_owned());
        other.metadata.labels.as_mut().unwrap().insert("team".to_owned(), "data".to_owned());
        other.data.as_mut().unwrap().insert("theirs".to_owned(), "x".to_owned());
        assert_eq!(config_map_digest(&ours), config_map_digest(&other));

        other.data.as_mut().unwrap().insert(names::config_key(VERSION), "broken".to_owned());
        assert_ne!(config_map_digest(&ours), config_map_digest(&other));
        let mut moved = (*ours).clone();
        moved.metadata.labels.as_mut().unwrap().insert(labels::POLICY.to_owned(), "else".to_owned());
        assert_ne!(config_map_digest(&ours), config_map_digest(&moved));
    }
}
