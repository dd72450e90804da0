//! What an injected pod looks like, for every scenario that makes one.

use anyhow::{Context, Result, ensure};
use crds::names::{self, annotations, volumes};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::ResourceExt;

/// The injected container: exactly one, in front of the init containers, with its configuration and its records.
pub fn sidecar(pod: &Pod) -> Result<&Container> {
    let name = pod.name_any();
    let spec = pod.spec.as_ref().context("a pod has a spec")?;
    let init = spec.init_containers.as_deref().unwrap_or_default();
    let all: Vec<&Container> =
        init.iter().chain(&spec.containers).filter(|container| container.name == names::CONTAINER).collect();
    ensure!(all.len() == 1, "pod {name} has {} sidecars", all.len());
    let first = init.first().filter(|first| first.name == names::CONTAINER);
    let sidecar =
        first.with_context(|| format!("in pod {name} the sidecar is not the first init container"))?;
    ensure!(
        sidecar.restart_policy.as_deref() == Some("Always"),
        "in pod {name} the sidecar is not a native one"
    );
    let mounts = sidecar.volume_mounts.as_deref().unwrap_or_default();
    for volume in [volumes::CONFIG, volumes::TOKEN, volumes::STATE] {
        ensure!(
            mounts.iter().any(|mount| mount.name == volume),
            "in pod {name} the sidecar has no mount {volume}"
        );
    }
    let has = [
        annotations::INJECTED_POLICY,
        annotations::INJECTED_GENERATION,
        annotations::SHAPE_HASH,
        annotations::DECISION,
        annotations::SERVICE_ACCOUNT,
    ];
    for annotation in has {
        ensure!(pod.annotations().contains_key(annotation), "pod {name} has no annotation {annotation}");
    }
    Ok(sidecar)
}

/// How often the sidecar was started again.
pub fn sidecar_restarts(pod: &Pod) -> i32 {
    let statuses =
        pod.status.as_ref().and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    statuses.iter().find(|status| status.name == names::CONTAINER).map_or(0, |status| status.restart_count)
}
