//! What in a pod cannot stand beside the sidecar.
//!
//! The containers of a pod share one network namespace. A `containerPort` says that the container listens there on an
//! address others reach, nearly always 0.0.0.0, and that excludes a listener on the same port, be it on 127.0.0.1 or on
//! 0.0.0.0: whoever binds second fails with an error that names no cause. So it is denied, which a Deployment's events
//! show, while a warning would be seen by its controller only. A listener on ::1 excludes only containers that listen on
//! IPv6, which nothing in the pod tells: a warning.

use std::net::Ipv6Addr;

use crds::{
    names::{ADMIN_PORT, CONTAINER, policy_object, volumes},
    policy::{SidecarPolicy, VolumeMount},
    units::ListenAddress,
};
use kube::ResourceExt;
use serde_json::Value;

use super::{
    InjectError,
    pod::{Pod, name},
    shape::Placement,
};

/// Fails when the pod uses one of the sidecar's names. Volumes that a former injection recorded are the sidecar's own.
pub(super) fn names(pod: &Pod<'_>) -> Result<(), InjectError> {
    if pod.sidecar().is_some() {
        return Err(InjectError::NameClash { what: "container", name: CONTAINER });
    }
    if pod.recorded_policy().is_some() {
        return Ok(());
    }
    let taken = [volumes::CONFIG, volumes::TOKEN, volumes::STATE, volumes::SECRETS]
        .into_iter()
        .find(|own| pod.volumes().iter().any(|volume| name(volume) == *own));
    match taken {
        Some(name) => Err(InjectError::NameClash { what: "volume", name }),
        None => Ok(()),
    }
}

/// Fails when the volume that a former injection left is not the configuration of this policy.
pub(super) fn configuration(pod: &Pod<'_>, policy: &SidecarPolicy) -> Result<(), InjectError> {
    let expected = policy_object(&policy.name_any());
    let found = pod.volumes().iter().find(|volume| name(volume) == volumes::CONFIG);
    let is_expected = |volume: &Value| {
        volume.get("configMap").and_then(|map| map.get("name")?.as_str()) == Some(expected.as_str())
    };
    match found {
        Some(volume) if !is_expected(volume) => {
            Err(InjectError::ConfigurationClash { policy: policy.name_any(), expected })
        }
        _ => Ok(()),
    }
}

/// Fails when the policy mounts a volume that the pod does not have: the API server would refuse the pod with less to go by.
pub(super) fn mounts(pod: &Pod<'_>, policy: &SidecarPolicy) -> Result<(), InjectError> {
    let missing = |mounted: &&VolumeMount| pod.volumes().iter().all(|volume| name(volume) != mounted.name);
    match policy.spec.injection.volume_mounts.iter().find(missing) {
        Some(mounted) => {
            Err(InjectError::MissingVolume { policy: policy.name_any(), volume: mounted.name.clone() })
        }
        None => Ok(()),
    }
}

/// Fails when the pod's network cannot be the sidecar's; returns warnings about what may go wrong.
pub(super) fn network(
    pod: &Pod<'_>,
    policy: &SidecarPolicy,
    placement: Placement,
) -> Result<Vec<String>, InjectError> {
    if pod.flag("hostNetwork") {
        return Err(InjectError::HostNetwork);
    }
    if pod.is_windows() {
        return Err(InjectError::Windows);
    }
    let mut warnings = Vec::new();
    for (container, port) in ports(pod, placement) {
        if port == ADMIN_PORT {
            return Err(InjectError::AdminPort { container: container.to_owned() });
        }
        let Some((kind, name, address)) = listener(policy, port) else { continue };
        if *address == ListenAddress::Ip(Ipv6Addr::LOCALHOST.into()) {
            warnings
                .push(format!("listener {name} on [::1]:{port}: keep the container off IPv6 port {port}"));
            continue;
        }
        return Err(InjectError::ListenerPort {
            policy: policy.name_any(),
            kind,
            listener: name.to_owned(),
            container: container.to_owned(),
            port,
        });
    }
    Ok(warnings)
}

/// The listener on a TCP port: its kind, name and address.
fn listener(policy: &SidecarPolicy, port: u16) -> Option<(&'static str, &str, &ListenAddress)> {
    let http = policy.spec.http.iter().map(|http| ("http", &http.name, http.port, &http.address));
    let tcp = policy.spec.tcp.iter().map(|tcp| ("tcp", &tcp.name, tcp.port, &tcp.address));
    let found = http.chain(tcp).find(|(_, _, own, _)| *own == Some(port));
    found.map(|(kind, name, _, address)| (kind, name.as_str(), address))
}

/// The TCP ports of all containers that run beside the sidecar, each with its container's name.
fn ports<'a>(pod: &Pod<'a>, placement: Placement) -> impl Iterator<Item = (&'a str, u16)> {
    let beside = move |container: &&Value| {
        placement == Placement::Native
            || container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
    };
    let containers = pod.init_containers().iter().filter(beside).chain(pod.containers());
    containers.flat_map(|container| {
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        ports.filter_map(move |port| {
            let tcp = port.get("protocol").and_then(Value::as_str).is_none_or(|protocol| protocol == "TCP");
            let number = port.get("containerPort").and_then(Value::as_u64)?;
            tcp.then_some((name(container), u16::try_from(number).ok()?))
        })
    })
}
