//! The caBundle in the webhook's configuration. Client required, but for the comparisons.
//!
//! Server-side apply of that one field: whatever Helm or anyone else wrote beside it stays theirs.

use k8s_openapi::{ByteString, api::admissionregistration::v1::MutatingWebhookConfiguration};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::json;

/// Owner of the field; another than the controller's, so that each applies its own alone.
const FIELD_MANAGER: &str = "sidecar-operator-certificates";

/// Whether every webhook of the configuration has exactly this bundle.
pub(super) fn is_published(configuration: &MutatingWebhookConfiguration, bundle: &str) -> bool {
    let bundles: Vec<Option<&ByteString>> = bundles(configuration).collect();
    !bundles.is_empty() && bundles.iter().all(|found| found.is_some_and(|found| found.0 == bundle.as_bytes()))
}

/// Whether every webhook of the configuration trusts this CA.
pub(super) fn contains_authority(configuration: &MutatingWebhookConfiguration, certificate: &str) -> bool {
    let mut bundles = bundles(configuration).peekable();
    let trusts = |bundle: &ByteString| {
        std::str::from_utf8(&bundle.0).is_ok_and(|bundle| bundle.contains(certificate.trim()))
    };
    bundles.peek().is_some() && bundles.all(|bundle| bundle.is_some_and(trusts))
}

fn bundles(configuration: &MutatingWebhookConfiguration) -> impl Iterator<Item = Option<&ByteString>> {
    configuration.webhooks.iter().flatten().map(|webhook| webhook.client_config.ca_bundle.as_ref())
}

/// Puts the bundle into every webhook of the configuration.
pub(super) async fn publish(
    client: &Client,
    configuration: &MutatingWebhookConfiguration,
    bundle: &str,
) -> Result<(), kube::Error> {
    let name = configuration.metadata.name.as_deref().unwrap_or_default();
    let bundle = ByteString(bundle.as_bytes().to_vec());
    let webhooks: Vec<serde_json::Value> = configuration
        .webhooks
        .iter()
        .flatten()
        .map(|webhook| json!({"name": webhook.name, "clientConfig": {"caBundle": bundle}}))
        .collect();
    let patch = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        // The uid keeps a configuration that was deleted meanwhile from being made anew.
        "metadata": {"name": name, "uid": configuration.metadata.uid},
        "webhooks": webhooks,
    });
    let parameters = PatchParams::apply(FIELD_MANAGER).force();
    Api::<MutatingWebhookConfiguration>::all(client.clone())
        .patch(name, &parameters, &Patch::Apply(patch))
        .await
        .map(drop)
}
