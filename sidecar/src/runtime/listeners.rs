//! The open listeners, brought in line with a configuration. Either all of it is applied or nothing is.

use std::{collections::HashMap, time::Duration};

use futures::future::join_all;
use tokio::{
    task::JoinSet,
    time::{self, Instant},
};

use super::{
    listener::{Listener, Metrics},
    parts::{Maker, OpenError, Prepared},
    plan::{Plan, plan},
};
use crate::{
    config::{Checked, CheckedListener},
    discovery::Discovery,
    http::Means,
    net::{Workers, tls::Store},
};

/// Time for a closed socket to free its address.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);
const RELEASE_POLL: Duration = Duration::from_millis(5);

pub(super) struct Listeners {
    open: Vec<Open>,
    metrics: Metrics,
    tls: Store,
    means: Means,
    /// Listeners that were removed, while their requests finish.
    draining: JoinSet<()>,
    leaving: bool,
}

struct Open {
    config: CheckedListener,
    listener: Listener,
    prepared: Prepared,
}

impl Listeners {
    pub(super) fn new(metrics: Metrics, tls: Store, means: Means) -> Self {
        Self { open: Vec::new(), metrics, tls, means, draining: JoinSet::new(), leaving: false }
    }

    /// Opens, updates and closes listeners. On an error everything is as it was before.
    pub(super) async fn apply(
        &mut self,
        config: &Checked,
        discovery: &mut Discovery,
        workers: &Workers,
    ) -> Result<(), OpenError> {
        while self.draining.try_join_next().is_some() {}
        let wanted = config.listeners();
        let running: Vec<&CheckedListener> = self.open.iter().map(|open| &open.config).collect();
        let Plan { open, make_way, replace, update, keep, close } = plan(&running, wanted);
        let prepared = self.prepare(wanted, discovery)?;

        let mut opened = HashMap::new();
        for new in open {
            let listener = self.open(&prepared[new], workers)?;
            opened.insert(new, listener);
        }

        let mut running: Vec<Option<Open>> = self.open.drain(..).map(Some).collect();
        let mut made_way = Vec::new();
        for old in make_way {
            if let Some(Open { config: old, listener, prepared }) = running[old].take() {
                let limit = listener.time_to_make_way(config.drain_timeout());
                self.drain_later(listener, limit);
                made_way.push((old, prepared));
            }
        }
        for new in replace {
            match self.open_released(&prepared[new], workers).await {
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
                listener.update(&prepared[new]);
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
            .zip(prepared)
            .enumerate()
            .filter_map(|(new, (config, prepared))| {
                Some(Open { config: config.clone(), listener: opened.remove(&new)?, prepared })
            })
            .collect();
        if self.leaving {
            self.leave();
        }
        Ok(())
    }

    /// Sends away clients from elsewhere, as they are answered, and goes on accepting; listeners to come do the same.
    pub(super) fn leave(&mut self) {
        self.leaving = true;
        self.open.iter().for_each(|open| open.listener.leave());
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

    fn open(&self, prepared: &Prepared, workers: &Workers) -> Result<Listener, OpenError> {
        Ok(Listener::open(prepared, workers, &self.metrics)?)
    }

    /// Reads what TLS needs, and follows the sources. A backend set stays while its sources stay the same.
    fn prepare(
        &self,
        wanted: &[CheckedListener],
        discovery: &mut Discovery,
    ) -> Result<Vec<Prepared>, OpenError> {
        let sets =
            self.open.iter().map(|open| open.config.sources().into_iter().zip(open.prepared.backends()));
        let known = sets.flatten().collect();
        let mut maker = Maker { tls: &self.tls, means: &self.means, discovery, known };
        let before = |listener: &CheckedListener| {
            let same = self.open.iter().find(|open| open.config.name() == listener.name());
            same.map(|open| &open.prepared)
        };
        wanted.iter().map(|listener| maker.prepare(listener, before(listener))).collect()
    }

    /// Opens a listener whose address another one is just giving up.
    async fn open_released(&self, prepared: &Prepared, workers: &Workers) -> Result<Listener, OpenError> {
        let deadline = Instant::now() + RELEASE_TIMEOUT;
        loop {
            match self.open(prepared, workers) {
                Err(_) if Instant::now() < deadline => time::sleep(RELEASE_POLL).await,
                result => return result,
            }
        }
    }

    /// Opens again what was closed for a listener that could not be opened.
    async fn restore(&mut self, closed: Vec<(CheckedListener, Prepared)>, workers: &Workers) {
        for (config, prepared) in closed {
            match self.open_released(&prepared, workers).await {
                Ok(listener) => self.open.push(Open { config, listener, prepared }),
                Err(error) => tracing::error!(%error, "a listener is lost until the next configuration"),
            }
        }
    }

    fn drain_later(&mut self, listener: Listener, timeout: Duration) {
        self.draining.spawn(listener.drain(timeout));
    }
}
