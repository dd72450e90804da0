//! The last look before something is deleted: a pod that the watch has not shown yet uses it too. Client required.

use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::ListParams};

use super::{cache::Key, facts::PodFact};

/// Selects the pods that have not finished: the phase is not in a pod's metadata, but the API server knows it.
pub(super) const UNFINISHED: &str = "status.phase!=Succeeded,status.phase!=Failed";

/// Namespaces may have thousands of pods.
const PAGE: u32 = 500;

/// Whether a pod that was injected by this policy and has not finished is there now.
pub(super) async fn is_used(client: &Client, policy: &Key) -> Result<bool, kube::Error> {
    let api = Api::<Pod>::namespaced(client.clone(), &policy.namespace);
    let mut parameters = ListParams::default().fields(UNFINISHED).limit(PAGE);
    loop {
        let page = api.list_metadata(&parameters).await?;
        let mut pods = page.items.into_iter().filter_map(PodFact::parse);
        if pods.any(|pod| pod.injected_policy() == Some(&policy.name)) {
            return Ok(true);
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => parameters.continue_token = Some(token),
            None => return Ok(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use hyper::{Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// Two pages of one pod each.
    fn pages(request: &Request<Body>) -> Value {
        let query = request.uri().query().unwrap_or_default();
        assert!(query.contains("status.phase"), "{query}");
        let (policy, token) =
            if query.contains("continue=next") { ("second", "") } else { ("first", "next") };
        json!({
            "apiVersion": "meta.k8s.io/v1",
            "kind": "PartialObjectMetadataList",
            "metadata": {"continue": token},
            "items": [{"metadata": {"name": policy, "annotations": {"sidecar.io/injected-policy": policy}}}],
        })
    }

    #[tokio::test]
    async fn a_pod_on_any_page_keeps_what_it_uses() {
        let server = tower::service_fn(async |request: Request<Body>| {
            Ok::<_, Infallible>(Response::new(Body::from(pages(&request).to_string().into_bytes())))
        });
        let client = Client::new(server, "default");
        for (policy, used) in [("first", true), ("second", true), ("third", false)] {
            assert_eq!(is_used(&client, &Key::new("ns", policy)).await.unwrap(), used, "{policy}");
        }
    }
}
