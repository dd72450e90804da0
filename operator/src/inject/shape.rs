//! The injected shape: container and volumes, made from policy, annotations and platform alone, so that the controller
//! can tell from a pod's metadata whether it is outdated.
//!
//! The volumes need no fsGroup: where the containers of a pod run as different users, the kubelet writes a projected
//! token with the volume's defaultMode, 0644; where all run as one, the token belongs to that user; and an fsGroup of
//! the pod's own is given to every container, this one too.

use std::collections::{BTreeMap, BTreeSet};

use crds::{
    names::{self, ADMIN_PORT, CONTAINER, volumes},
    policy::{Mode, SecretKeys, SidecarPolicy, VolumeMount},
};
use kube::ResourceExt;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{InjectError, Platform, Settings, overrides::Overrides, resources::Amounts};

/// User and group of the sidecar, those of the image.
const USER: i64 = 65532;
/// Seconds that a projected token is valid; the kubelet renews it after 80 % of that. Kubernetes' own choice.
const TOKEN_SECONDS: u64 = 3607;
/// Seconds that a first start may take. The sidecar waits for its configuration, and a restart would not bring it.
const STARTUP_SECONDS: u32 = 600;

/// Run when the pod is to end. Its SIGTERM comes when the application has gone: by then other pods must ask elsewhere.
const LEAVE: [&str; 4] = ["/sidecar", "leave", "--state-dir", volumes::STATE_PATH];

/// Where the container goes, which decides how it starts and stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// First of the init containers, with `restartPolicy: Always`: the others can use it, and Jobs finish.
    Native,
    /// First of the ordinary containers: the kubelet starts it before the application's, but waits for none.
    Container,
}

/// What is added to a pod.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shape {
    pub(super) placement: Placement,
    pub(super) container: Value,
    /// Name and volume.
    pub(super) volumes: Vec<(&'static str, Value)>,
}

/// Hash of the shape that a pod with these annotations gets from the policy now.
pub fn hash(
    policy: &SidecarPolicy,
    annotations: &BTreeMap<String, String>,
    platform: Platform,
    settings: &Settings,
) -> Result<String, InjectError> {
    Shape::new(policy, annotations, platform, settings)?.hash()
}

impl Shape {
    pub(super) fn new(
        policy: &SidecarPolicy,
        annotations: &BTreeMap<String, String>,
        platform: Platform,
        settings: &Settings,
    ) -> Result<Self, InjectError> {
        let overrides = Overrides::parse(annotations)?;
        let injection = &policy.spec.injection;
        let placement = placement(policy, &overrides, platform)?;
        let name = policy.name_any();
        let amounts = Amounts::new(&overrides, &injection.resources, &name)?;
        let level = overrides.log_level.unwrap_or(injection.log_level).to_string();
        let config_map = names::policy_object(&name);

        let mut container = json!({
            "name": CONTAINER,
            "image": injection.image.as_deref().unwrap_or(&settings.sidecar_image),
            "imagePullPolicy": "IfNotPresent",
            "args": arguments(&config_map, placement, &amounts, &level),
            "env": [
                field("POD_NAME", "metadata.name"),
                field("POD_NAMESPACE", "metadata.namespace"),
                field("POD_IP", "status.podIP"),
                field("NODE_NAME", "spec.nodeName"),
                // Kubernetes 1.35 copies it from the node. It is empty where nobody sets the label.
                field("SIDECAR_ZONE", "metadata.labels['topology.kubernetes.io/zone']"),
            ],
            "ports": [{"name": "sidecar-admin", "containerPort": ADMIN_PORT, "protocol": "TCP"}],
            "startupProbe": {
                "httpGet": {"path": "/ready", "port": ADMIN_PORT},
                "periodSeconds": 1, "timeoutSeconds": 2, "failureThreshold": STARTUP_SECONDS,
            },
            "livenessProbe": {
                "httpGet": {"path": "/live", "port": ADMIN_PORT},
                "periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 3,
            },
            "resources": amounts.to_json(),
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "capabilities": {"drop": ["ALL"]},
                "privileged": false,
                "readOnlyRootFilesystem": true,
                "runAsGroup": USER,
                "runAsNonRoot": true,
                "runAsUser": USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "volumeMounts": [
                {"name": volumes::CONFIG, "mountPath": volumes::CONFIG_PATH, "readOnly": true},
                {"name": volumes::TOKEN, "mountPath": volumes::TOKEN_PATH, "readOnly": true},
                {"name": volumes::STATE, "mountPath": volumes::STATE_PATH},
            ],
        });
        if placement == Placement::Native {
            container["restartPolicy"] = "Always".into();
            // Every one has it, so that a listener for other pods can come later.
            container["lifecycle"] = json!({"preStop": {"exec": {"command": LEAVE}}});
        }
        for VolumeMount { name, mount_path, read_only } in &injection.volume_mounts {
            mount(&mut container, name, mount_path, *read_only);
        }
        let mut added = added_volumes(&config_map);
        let secrets = policy.spec.secret_keys();
        if !secrets.is_empty() {
            mount(&mut container, volumes::SECRETS, volumes::SECRETS_PATH, true);
            added.push((volumes::SECRETS, secrets_volume(&secrets)));
        }
        Ok(Self { placement, container, volumes: added })
    }

    pub(super) fn hash(&self) -> Result<String, InjectError> {
        #[derive(Serialize)]
        struct Hashed<'a> {
            container: &'a Value,
            native: bool,
            volumes: Vec<&'a Value>,
        }
        let native = self.placement == Placement::Native;
        let hashed = Hashed {
            container: &self.container,
            native,
            volumes: self.volumes.iter().map(|(_, volume)| volume).collect(),
        };
        let bytes = serde_json::to_vec(&hashed).map_err(|_| InjectError::Encoding)?;
        Ok(hex::encode(&Sha256::digest(bytes)[..8]))
    }
}

fn placement(
    policy: &SidecarPolicy,
    overrides: &Overrides,
    platform: Platform,
) -> Result<Placement, InjectError> {
    match overrides.mode.unwrap_or(policy.spec.injection.mode) {
        Mode::Container => Ok(Placement::Container),
        Mode::Auto | Mode::Native if platform.native_sidecars => Ok(Placement::Native),
        Mode::Auto => Ok(Placement::Container),
        Mode::Native => {
            let asked_by = match overrides.mode {
                Some(_) => "annotation sidecar.io/mode".to_owned(),
                None => format!("spec.injection.mode of policy {}", policy.name_any()),
            };
            Err(InjectError::NativeUnsupported { asked_by })
        }
    }
}

fn arguments(config_map: &str, placement: Placement, amounts: &Amounts, level: &str) -> Vec<String> {
    let mut arguments: Vec<String> = ["run", "--config", volumes::CONFIG_PATH, "--config-map", config_map]
        .into_iter()
        .chain(["--state-dir", volumes::STATE_PATH])
        .map(str::to_owned)
        .collect();
    if let Some(threads) = amounts.threads() {
        arguments.extend(["--threads".to_owned(), threads.to_string()]);
    }
    let mode = if placement == Placement::Native { "native" } else { "container" };
    arguments.extend(["--mode", mode, "--log-level", level].map(str::to_owned));
    arguments
}

fn field(name: &str, path: &str) -> Value {
    json!({"name": name, "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}})
}

fn added_volumes(config_map: &str) -> Vec<(&'static str, Value)> {
    vec![
        (
            volumes::CONFIG,
            json!({"name": volumes::CONFIG, "configMap": {"name": config_map, "optional": true, "defaultMode": 0o644}}),
        ),
        (
            volumes::TOKEN,
            json!({"name": volumes::TOKEN, "projected": {"defaultMode": 0o644, "sources": [
                {"serviceAccountToken": {"path": "token", "expirationSeconds": TOKEN_SECONDS}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [
                    {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}},
                ]}},
            ]}}),
        ),
        (
            volumes::STATE,
            json!({"name": volumes::STATE, "emptyDir": {"medium": "Memory", "sizeLimit": volumes::STATE_SIZE}}),
        ),
    ]
}

fn mount(container: &mut Value, volume: &str, path: &str, read_only: bool) {
    if let Some(mounts) = container["volumeMounts"].as_array_mut() {
        mounts.push(json!({"name": volume, "mountPath": path, "readOnly": read_only}));
    }
}

/// One volume for all Secrets, so that those that change together are seen to change together. The pod waits for each key.
fn secrets_volume(secrets: &SecretKeys<'_>) -> Value {
    let source = |(secret, keys): (&&str, &BTreeSet<&str>)| {
        let items: Vec<Value> =
            keys.iter().map(|key| json!({"key": key, "path": names::secret_path(secret, key)})).collect();
        json!({"secret": {"name": secret, "items": items}})
    };
    let sources: Vec<Value> = secrets.iter().map(source).collect();
    json!({"name": volumes::SECRETS, "projected": {"defaultMode": 0o444, "sources": sources}})
}
