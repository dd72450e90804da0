//! The Kubernetes API: one client for all, made when the first watch needs it, and a watch that never gives up.
//!
//! connect -> list -> watch -> (error: say it once, wait, go on). The caller gets whole sets of objects, never parts.

use std::{collections::HashMap, fmt::Debug, pin::Pin, time::Duration};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Config, Resource, ResourceExt,
    config::KubeConfigOptions,
    runtime::watcher::{self, Event},
};
use serde::de::DeserializeOwned;
use tokio::{sync::OnceCell, time};

/// A Role may be bound moments after the pod has started, so that the first retries are quick.
const FIRST_RETRY: Duration = Duration::from_millis(100);
const SLOWEST_RETRY: Duration = Duration::from_secs(5);

/// The server ends a watch after this time and it is resumed: a connection that died in silence is noticed then.
const WATCH_SECONDS: u32 = 120;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 10);

/// Why the API server cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error(
        "this process is not in a pod, and there is no kubeconfig ({0}); use addresses or dns backends outside of Kubernetes, or set KUBECONFIG"
    )]
    NoKubeconfig(#[source] kube::config::KubeconfigError),
    #[error("the pod's API token cannot be used ({0}); check the volume sidecar-token of the pod")]
    InCluster(#[source] kube::config::InClusterError),
    #[error("the API client cannot be made ({0})")]
    Client(#[source] kube::Error),
}

/// The shared client.
#[derive(Default)]
pub struct Cluster {
    client: OnceCell<Client>,
}

impl Cluster {
    /// A cluster whose client is made already.
    pub fn with_client(client: Client) -> Self {
        Self { client: OnceCell::new_with(Some(client)) }
    }

    async fn client(&self) -> Result<Client, ClusterError> {
        self.client.get_or_try_init(connect).await.cloned()
    }

    /// Whether the API server says that it does not have this group and version. Silence is no such answer.
    pub(super) async fn lacks(&self, group_version: &str) -> bool {
        let Ok(client) = self.client().await else { return false };
        let answer = time::timeout(CONNECT_TIMEOUT, client.list_api_group_resources(group_version)).await;
        matches!(answer, Ok(Err(kube::Error::Api(status))) if status.code == 404)
    }
}

async fn connect() -> Result<Client, ClusterError> {
    let mut config = if std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
        Config::incluster().map_err(ClusterError::InCluster)?
    } else {
        let options = KubeConfigOptions::default();
        Config::from_kubeconfig(&options).await.map_err(ClusterError::NoKubeconfig)?
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    config.read_timeout = Some(READ_TIMEOUT);
    // Retries are the follower's, which must see each error.
    config.default_retry = false;
    Client::try_from(config).map_err(ClusterError::Client)
}

/// What a follower has seen.
pub enum Seen<T> {
    /// All objects there are, by name, each as its reader has read it.
    Objects(HashMap<String, T>),
    /// An error of another kind than the one before; what was seen stays true as far as anyone knows.
    Trouble(Trouble),
}

/// Why nothing new can be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub kind: TroubleKind,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TroubleKind {
    /// There is no way to the API server.
    Unreachable,
    /// The Role does not allow it, yet.
    Forbidden,
    /// The API server does not have this kind of object.
    NotServed,
    Other,
}

type Events<K> = Pin<Box<dyn Stream<Item = watcher::Result<Event<K>>> + Send>>;

/// Follows all objects of a watch. See [`follow`].
pub struct Follower<'a, K, T, A, R> {
    cluster: &'a Cluster,
    what: String,
    api: A,
    watched: watcher::Config,
    read: R,
    events: Option<Events<K>>,
    backoff: Backoff,
    trouble: Option<Trouble>,
    /// Grows during a listing, and replaces `objects` when that is complete.
    listing: HashMap<String, T>,
    objects: HashMap<String, T>,
}

/// Lists and watches objects, each reduced by `read` to what the caller needs of it.
pub fn follow<K, T, A, R>(
    cluster: &Cluster,
    what: String,
    api: A,
    watched: watcher::Config,
    read: R,
) -> Follower<'_, K, T, A, R>
where
    A: Fn(Client) -> Api<K>,
    R: Fn(K) -> T,
{
    Follower {
        cluster,
        what,
        api,
        watched: watched.timeout(WATCH_SECONDS),
        read,
        events: None,
        backoff: Backoff::new(),
        trouble: None,
        listing: HashMap::new(),
        objects: HashMap::new(),
    }
}

impl<K, T, A, R> Follower<'_, K, T, A, R>
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    T: Clone,
    A: Fn(Client) -> Api<K>,
    R: Fn(K) -> T,
{
    /// Waits for the next change, or the next trouble. Errors of one kind in a row are told once.
    pub async fn next(&mut self) -> Seen<T> {
        loop {
            let trouble = match self.event().await {
                Ok(Some(Event::Init)) => {
                    self.listing.clear();
                    continue;
                }
                Ok(Some(Event::InitApply(object))) => {
                    self.listing.insert(object.name_any(), (self.read)(object));
                    continue;
                }
                Ok(Some(Event::InitDone)) => {
                    self.objects = std::mem::take(&mut self.listing);
                    return self.changed();
                }
                Ok(Some(Event::Apply(object))) => {
                    self.objects.insert(object.name_any(), (self.read)(object));
                    return self.changed();
                }
                Ok(Some(Event::Delete(object))) => {
                    self.objects.remove(&object.name_any());
                    return self.changed();
                }
                Ok(None) => {
                    self.events = None;
                    continue;
                }
                Err(trouble) => trouble,
            };
            let delay = self.backoff.next();
            let news = self.trouble.as_ref().map(|last| last.kind) != Some(trouble.kind);
            if news {
                tracing::warn!(what = self.what, error = trouble.message, "waiting for the Kubernetes API");
                self.trouble = Some(trouble.clone());
                // The caller learns it at once; the wait is made up for by the next call.
                self.backoff.owed = Some(delay);
                return Seen::Trouble(trouble);
            }
            tracing::debug!(
                what = self.what,
                error = trouble.message,
                "still waiting for the Kubernetes API"
            );
            time::sleep(delay).await;
        }
    }

    async fn event(&mut self) -> Result<Option<Event<K>>, Trouble> {
        if let Some(delay) = self.backoff.owed.take() {
            time::sleep(delay).await;
        }
        let events = match &mut self.events {
            Some(events) => events,
            None => {
                let client = self.cluster.client().await.map_err(|error| unreachable(error.to_string()))?;
                let events = watcher::watcher((self.api)(client), self.watched.clone());
                self.events.insert(Box::pin(events))
            }
        };
        match events.next().await {
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => {
                if is_gone(&error) {
                    // The library would ask again for the version that is gone.
                    self.events = None;
                }
                Err(trouble(&error))
            }
            None => Ok(None),
        }
    }

    fn changed(&mut self) -> Seen<T> {
        if self.trouble.take().is_some() {
            tracing::info!(what = self.what, "the Kubernetes API answers again");
        }
        self.backoff = Backoff::new();
        Seen::Objects(self.objects.clone())
    }
}

/// Delays between retries: 100 ms, 200 ms, ... 5 s, each lengthened at random to at most twice that.
pub(super) struct Backoff {
    delays: ExponentialBackoff,
    owed: Option<Duration>,
}

impl Backoff {
    pub(super) fn new() -> Self {
        let delays = ExponentialBuilder::new()
            .with_min_delay(FIRST_RETRY)
            .with_max_delay(SLOWEST_RETRY)
            .with_jitter()
            .without_max_times()
            .build();
        Self { delays, owed: None }
    }

    pub(super) fn next(&mut self) -> Duration {
        self.delays.next().unwrap_or(SLOWEST_RETRY)
    }
}

fn unreachable(message: String) -> Trouble {
    Trouble { kind: TroubleKind::Unreachable, message }
}

fn trouble(error: &watcher::Error) -> Trouble {
    let status = match error {
        watcher::Error::WatchError(status) => Some(status.as_ref()),
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => Some(status.as_ref()),
        _ => None,
    };
    let Some(status) = status else {
        return unreachable(with_sources(error));
    };
    let (kind, remedy) = match status.code {
        401 | 403 => (
            TroubleKind::Forbidden,
            "; the operator binds a Role to the pod's ServiceAccount, wait or check it",
        ),
        404 => (TroubleKind::NotServed, ""),
        _ => (TroubleKind::Other, ""),
    };
    Trouble { kind, message: format!("{} ({}){remedy}", status.message, status.code) }
}

/// kube's errors leave out why a connection failed; their sources tell it.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}
