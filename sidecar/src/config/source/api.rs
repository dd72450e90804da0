//! The policy's ConfigMap by an API watch, which is seconds ahead of kubelet's mount.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, runtime::watcher};
use tokio::sync::mpsc;

use super::{Document, Origin, Reading, newest_known};
use crate::discovery::cluster::{Cluster, Seen, follow as follow_objects};

/// Reports the ConfigMap, at first and after each change, until the receiver is gone. Errors are retried for ever.
pub async fn follow(cluster: Arc<Cluster>, namespace: String, name: String, readings: mpsc::Sender<Reading>) {
    let what = format!("ConfigMap {namespace}/{name}");
    let watched = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let api = |client| Api::<ConfigMap>::namespaced(client, &namespace);
    let mut events = follow_objects(&cluster, what.clone(), api, watched, read);
    loop {
        let seen = tokio::select! {
            seen = events.next() => seen,
            () = readings.closed() => return,
        };
        let reading = match seen {
            Seen::Objects(found) => match found.into_values().flatten().next() {
                Some((key, bytes)) => {
                    let document = Document { name: format!("{what}, key {key}"), bytes };
                    Reading::Found { origin: Origin::Api, document }
                }
                None => Reading::Missing { origin: Origin::Api, awaited: what.clone() },
            },
            Seen::Trouble(trouble) => {
                Reading::Missing { origin: Origin::Api, awaited: format!("{what}: {}", trouble.message) }
            }
        };
        if readings.send(reading).await.is_err() {
            return;
        }
    }
}

/// Key and content of the newest known version; the rest is not kept.
fn read(object: ConfigMap) -> Option<(String, Vec<u8>)> {
    let mut data = object.data?;
    let key = newest_known(data.keys().map(String::as_str))?.to_owned();
    let text = data.remove(&key)?;
    Some((key, text.into_bytes()))
}
