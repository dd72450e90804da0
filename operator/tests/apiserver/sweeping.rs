//! What nobody needs any more goes; what a pod uses stays.

use crds::policy::SidecarPolicy;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Pod},
    rbac::v1::{Role, RoleBinding},
};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use super::support::*;

#[tokio::test]
async fn objects_go_with_the_policy_unless_a_running_pod_uses_them() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("sweep").await?;
    for name in ["used", "unused"] {
        create(&client, &ns, &policy(name, "[{addresses: ['10.0.0.1:80']}]")?).await?;
        until_condition(&client, &ns, name, "Ready", ("True", "Applied")).await?;
    }
    let annotations = [("sidecar.io/injected-policy", "used"), ("sidecar.io/service-account", "runner")];
    pod(&client, &ns, "pod", "used", &annotations).await?;
    until::<RoleBinding>(&client, &ns, "sidecar-used", "bound", |_| true).await?;

    delete::<SidecarPolicy>(&client, &ns, "used").await?;
    delete::<SidecarPolicy>(&client, &ns, "unused").await?;
    until_gone::<ConfigMap>(&client, &ns, "sidecar-unused").await?;
    until_gone::<Role>(&client, &ns, "sidecar-unused").await?;
    Api::<ConfigMap>::namespaced(client.clone(), &ns).get("sidecar-used").await?;
    Api::<RoleBinding>::namespaced(client.clone(), &ns).get("sidecar-used").await?;

    // A pod that has finished reads no configuration, although it is still there.
    let pods = Api::<Pod>::namespaced(client.clone(), &ns);
    let finished = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
    pods.patch_status("pod", &PatchParams::default(), &finished).await?;
    until_gone::<RoleBinding>(&client, &ns, "sidecar-used").await?;
    until_gone::<Role>(&client, &ns, "sidecar-used").await?;
    until_gone::<ConfigMap>(&client, &ns, "sidecar-used").await
}

#[tokio::test]
async fn rights_end_with_the_last_injected_pod() -> anyhow::Result<()> {
    let (server, client) = controlled().await?;
    let ns = server.namespace("rights").await?;
    create(&client, &ns, &policy("data", "[{addresses: ['10.0.0.1:80']}]")?).await?;
    let annotations = [("sidecar.io/injected-policy", "data"), ("sidecar.io/service-account", "runner")];
    pod(&client, &ns, "pod", "data", &annotations).await?;
    until::<RoleBinding>(&client, &ns, "sidecar-data", "bound", |_| true).await?;
    delete::<Pod>(&client, &ns, "pod").await?;
    until_gone::<RoleBinding>(&client, &ns, "sidecar-data").await?;
    Api::<ConfigMap>::namespaced(client, &ns).get("sidecar-data").await?;
    Ok(())
}
