//! Every name that operator, sidecar, chart and tests must agree on.

use sha2::{Digest, Sha256};

/// API group of the policies and prefix of the annotations.
pub const GROUP: &str = "sidecar.io";

/// The injected container. A user's container of this name is a clash and denied.
pub const CONTAINER: &str = "sidecar";

/// Port of `/live`, `/ready` and `/metrics` on the pod's address.
pub const ADMIN_PORT: u16 = 15470;

/// Volumes that the webhook adds, and where the sidecar mounts them.
pub mod volumes {
    /// The policy's ConfigMap, optional, mounted as a directory so that updates arrive.
    pub const CONFIG: &str = "sidecar-config";
    pub const CONFIG_PATH: &str = "/etc/sidecar";
    /// Projected token, cluster CA and namespace, for the sidecar alone.
    pub const TOKEN: &str = "sidecar-token";
    pub const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
    /// Small memory volume that keeps the last good backend sets across a restart of the sidecar.
    pub const STATE: &str = "sidecar-state";
    pub const STATE_PATH: &str = "/var/run/sidecar";
    pub const STATE_SIZE: &str = "16Mi";
    /// The Secrets that the policy names, for the sidecar alone; only where it names some.
    pub const SECRETS: &str = "sidecar-secrets";
    pub const SECRETS_PATH: &str = "/var/run/sidecar-secrets";
}

/// Annotations that users write on pods (and on Namespaces: [`EXPORT_TO`](annotations::EXPORT_TO)).
pub mod annotations {
    /// `"true"` opts a pod in, `"false"` says it stays out; anything else is denied.
    pub const INJECT: &str = "sidecar.io/inject";
    /// Names the policy instead of letting selectors and priority choose.
    pub const POLICY: &str = "sidecar.io/policy";
    pub const MODE: &str = "sidecar.io/mode";
    pub const LOG_LEVEL: &str = "sidecar.io/log-level";
    pub const CPU_REQUEST: &str = "sidecar.io/cpu-request";
    pub const CPU_LIMIT: &str = "sidecar.io/cpu-limit";
    pub const MEMORY_REQUEST: &str = "sidecar.io/memory-request";
    pub const MEMORY_LIMIT: &str = "sidecar.io/memory-limit";
    /// On a Namespace: comma-separated namespaces whose policies may use its Services, or `*`.
    pub const EXPORT_TO: &str = "sidecar.io/export-to";

    /// Written by the webhook: name of the policy that shaped the pod.
    pub const INJECTED_POLICY: &str = "sidecar.io/injected-policy";
    /// Written by the webhook: `metadata.generation` of that policy at admission.
    pub const INJECTED_GENERATION: &str = "sidecar.io/injected-generation";
    /// Written by the webhook: hash of the injected shape; differs from the policy's when the pod is outdated.
    pub const SHAPE_HASH: &str = "sidecar.io/shape-hash";
    /// Written by the webhook: the decision in words.
    pub const DECISION: &str = "sidecar.io/decision";
    /// Written by the webhook: the pod's ServiceAccount, so that the controller can bind Roles from metadata alone.
    pub const SERVICE_ACCOUNT: &str = "sidecar.io/service-account";
}

/// Labels on everything that the controller applies.
pub mod labels {
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    pub const MANAGER: &str = "sidecar-operator";
    pub const POLICY: &str = "sidecar.io/policy";
    pub const POLICY_NAMESPACE: &str = "sidecar.io/policy-namespace";
}

/// Path of a Secret's key within the volume [`SECRETS`](volumes::SECRETS).
pub fn secret_path(secret: &str, key: &str) -> String {
    format!("{secret}/{key}")
}

/// The file that the sidecar reads a Secret's key from.
pub fn secret_file(secret: &str, key: &str) -> String {
    format!("{}/{}", volumes::SECRETS_PATH, secret_path(secret, key))
}

/// Longest name the project gives to an object, so that it also fits a label value.
const MAX_NAME: usize = 63;

/// Name of the ConfigMap, the Role and the RoleBinding of a policy in the policy's own namespace.
pub fn policy_object(policy: &str) -> String {
    bounded(format!("sidecar-{policy}"))
}

/// Name of the Role and RoleBinding that let a policy's pods read the EndpointSlices of another namespace.
/// `.` can stand in the name of a policy and not in that of a namespace, so that no two policies share one, and none is
/// the [`policy_object`] of another.
pub fn exported_object(policy_namespace: &str, policy: &str) -> String {
    bounded(format!("sidecar.{policy_namespace}.{policy}"))
}

/// Key of a configuration version in the ConfigMap, and file name in the mounted directory.
pub fn config_key(version: u32) -> String {
    format!("sidecar.v{version}.yaml")
}

/// The version that [`config_key`] made this key from.
pub fn config_version(key: &str) -> Option<u32> {
    key.strip_prefix("sidecar.v")?.strip_suffix(".yaml")?.parse().ok()
}

/// Shortens a long name to its head and a hash of the whole: different names stay different.
fn bounded(name: String) -> String {
    if name.len() <= MAX_NAME {
        return name;
    }
    let digest = Sha256::digest(name.as_bytes());
    let hash: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let head: String = name.chars().take(MAX_NAME - hash.len() - 1).collect();
    format!("{}-{hash}", head.trim_end_matches(['-', '.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_within_a_label_value_and_apart() {
        let (a, b) = (policy_object(&"a".repeat(80)), policy_object(&format!("{}b", "a".repeat(79))));
        assert!(a.len() <= MAX_NAME && b.len() <= MAX_NAME);
        assert_ne!(a, b);
        assert_eq!(policy_object("data"), "sidecar-data");
    }

    #[test]
    fn two_policies_never_share_an_exported_name() {
        assert_ne!(exported_object("a-b", "c"), exported_object("a", "b-c"));
        assert_ne!(exported_object("a", "b"), policy_object("a.b"), "a policy's name may have a dot");
    }

    #[test]
    fn a_config_key_names_its_version() {
        assert_eq!(config_version(&config_key(7)), Some(7));
        assert_eq!(config_version("sidecar.yaml"), None);
    }
}
