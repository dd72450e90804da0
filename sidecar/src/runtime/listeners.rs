//! The open listeners, brought in line with a configuration. Either all of it is applied or nothing is.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::plan::{Plan, plan};
use crate::{
    config::{Checked, CheckedListener},
    discovery::{Backends, Discovery},
    http::{ALPN, Gate, Listener, Means, Metrics, OpenError, Parts, SiteInput},
    net::{
        Workers,
        tls::{Store, TlsError},
    },
};

/// Time for a closed socket to free its address.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const RELEASE_POLL: Duration = Duration::from_millis(5);

pub(super) struct Listeners {
    open: Vec<Open>,
    metrics: Arc<Metrics>,
    tls: Store,
    means: Means,
    /// Listeners that were removed, while their requests finish.
    draining: JoinSet<()>,
}

struct Open {
    config: CheckedListener,
    listener: Listener,
    parts: Parts,
}

impl Listeners {
    pub(super) fn new(metrics: Arc<Metrics>, tls: Store, means: Means) -> Self {
        Self { open: Vec::new(), metrics, tls, means, draining: JoinSet::new() }
    }

    /// Opens, updates and closes listeners. On an error everything is as it was before.
    pub(super) async fn apply(
        &mut self,
        config: &Checked,
        discovery: &mut Discovery,
        workers: &Workers,
    ) -> Result<(), OpenError> {
        while self.draining.try_join_next().is_some() {}
        let wanted = config.http();
        let running: Vec<&CheckedListener> = self.open.iter().map(|open| &open.config).collect();
        let Plan { open, make_way, replace, update, keep, close } = plan(&running, wanted);
        let parts: Vec<Parts> =
            wanted.iter().map(|listener| self.parts(listener, discovery)).collect::<Result<_, _>>()?;

        let mut opened = HashMap::new();
        for new in open {
            let listener = self.open(&wanted[new], &parts[new], workers)?;
            opened.insert(new, listener);
        }

        let mut running: Vec<Option<Open>> = self.open.drain(..).map(Some).collect();
        let mut made_way = Vec::new();
        for old in make_way {
            if let Some(Open { config: old, listener, parts }) = running[old].take() {
                self.drain_later(listener, config.drain_timeout());
                made_way.push((old, parts));
            }
        }
        for new in replace {
            match self.open_released(&wanted[new], &parts[new], workers).await {
                Ok(listener) => opened.insert(new, listener),
                Err(error) => {
                    drop(opened);
                    self.open = running.into_iter().flatten().collect();
                    self.restore(made_way, workers).await;
                    return Err(error);
                }
            };
        }

        for (old, new) in update.iter().chain(&keep).copied() {
            let Some(Open { listener, .. }) = running[old].take() else { continue };
            if update.contains(&(old, new)) {
                listener.update(wanted[new].listener(), parts[new].clone());
                tracing::info!(listener = wanted[new].name(), "listener updated");
            }
            opened.insert(new, listener);
        }
        for old in close {
            if let Some(Open { config: old, listener, .. }) = running[old].take() {
                tracing::info!(listener = old.name(), address = %old.socket_address(), "listener closing");
                self.drain_later(listener, config.drain_timeout());
            }
        }
        self.open = wanted
            .iter()
            .zip(parts)
            .enumerate()
            .filter_map(|(new, (config, parts))| {
                Some(Open { config: config.clone(), listener: opened.remove(&new)?, parts })
            })
            .collect();
        Ok(())
    }

    /// Names of the listeners whose backend sets have not all answered.
    pub(super) fn unanswered(&self) -> Vec<String> {
        let waiting = self.open.iter().filter(|open| !*open.listener.answered().borrow());
        waiting.map(|open| open.config.name().to_owned()).collect()
    }

    /// Waits until each backend set of each listener has answered.
    pub(super) async fn answered(&self) {
        for open in &self.open {
            // A listener that is gone has nothing left to answer.
            let _ = open.listener.answered().wait_for(|answered| *answered).await;
        }
    }

    /// Connections open now, those of removed listeners left out.
    pub(super) fn connections(&self) -> usize {
        self.open.iter().map(|open| open.listener.connections()).sum()
    }

    /// Stops accepting everywhere and lets requests finish.
    pub(super) async fn drain(mut self, timeout: Duration) {
        let drains = self.open.drain(..).map(|open| open.listener.drain(timeout));
        join_all(drains).await;
        if time::timeout(timeout, self.draining.join_all()).await.is_err() {
            tracing::debug!("a removed listener was cut off");
        }
    }

    fn open(
        &self,
        config: &CheckedListener,
        parts: &Parts,
        workers: &Workers,
    ) -> Result<Listener, OpenError> {
        Listener::open(config.listener(), parts.clone(), workers, self.metrics.clone())
    }

    /// Reads what TLS needs. A site keeps its backends while its sources stay the same.
    fn parts(&self, listener: &CheckedListener, discovery: &mut Discovery) -> Result<Parts, OpenError> {
        let failed = |place: String, source: TlsError| OpenError::Tls {
            listener: listener.name().to_owned(),
            place: join(&place, source.field()),
            source,
        };
        let server = |tls| self.tls.server(tls, ALPN).map_err(|error| failed("tls".to_owned(), error));
        let tls = listener.listener().tls.as_ref().map(server).transpose()?;
        let known: Vec<(&[_], &Backends)> = self
            .open
            .iter()
            .flat_map(|open| open.config.sites().iter().zip(&open.parts.sites))
            .map(|(site, input)| (site.sources(), &input.backends))
            .collect();
        let mut sites = Vec::new();
        for site in listener.sites() {
            let client = |tls| {
                self.tls.client(tls).map_err(|error| failed(format!("site {}: tls", site.name()), error))
            };
            let known = known.iter().find(|(sources, _)| *sources == site.sources());
            sites.push(SiteInput {
                name: site.name().to_owned(),
                tls: site.tls().map(client).transpose()?,
                protocol: site.protocol(),
                backends: known
                    .map_or_else(|| discovery.subscribe(site.sources()), |(_, backends)| (*backends).clone()),
            });
        }
        let before = self.open.iter().find(|open| open.config.name() == listener.name());
        let before = before.map(|open| &*open.parts.gate);
        let gate = Gate::new(listener.listener(), &self.means, before)
            .map_err(|source| OpenError::Gate { listener: listener.name().to_owned(), source })?;
        let gate = Arc::new(gate);
        Ok(Parts { tls, gate, sites })
    }

    /// Opens a listener whose address another one is just giving up.
    async fn open_released(
        &self,
        config: &CheckedListener,
        parts: &Parts,
        workers: &Workers,
    ) -> Result<Listener, OpenError> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        loop {
            match self.open(config, parts, workers) {
                Err(_) if Instant::now() < deadline => time::sleep(RELEASE_POLL).await,
                result => return result,
            }
        }
    }

    /// Opens again what was closed for a listener that could not be opened.
    async fn restore(&mut self, closed: Vec<(CheckedListener, Parts)>, workers: &Workers) {
        for (config, parts) in closed {
            match self.open_released(&config, &parts, workers).await {
                Ok(listener) => self.open.push(Open { config, listener, parts }),
                Err(error) => tracing::error!(%error, "a listener is lost until the next configuration"),
            }
        }
    }

    fn drain_later(&mut self, listener: Listener, timeout: Duration) {
        self.draining.spawn(listener.drain(timeout));
    }
}

fn join(place: &str, field: &str) -> String {
    if field.is_empty() { place.to_owned() } else { format!("{place}.{field}") }
}
