//! Routes by server name: each has backends, a balancer and a queue of its own, for as long as it keeps its name.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crds::config::TcpListener;
use tokio::{sync::watch, time::Instant};

use super::{names::Names, queue::Queue};
use crate::{
    balance::{Balancer, Route, Rules, SiteInput},
    l4::metrics::Counters,
};

/// A route as threads and scrapes see it.
#[derive(Clone)]
pub(in crate::l4) struct Way {
    pub(in crate::l4) route: watch::Receiver<Arc<Route<Counters>>>,
    pub(in crate::l4) queue: Arc<Queue>,
}

/// A snapshot of all routes of a listener.
#[derive(Default)]
pub(in crate::l4) struct Ways {
    pub(super) names: Names,
    /// By the indexes of the names.
    pub(in crate::l4) all: Vec<Way>,
    /// Clients that no route is for have backends too.
    pub(super) has_rest: bool,
}

/// The one writer of the snapshot.
pub(super) struct Routes {
    kept: Mutex<HashMap<String, Kept>>,
    ways: watch::Sender<Arc<Ways>>,
}

struct Kept {
    balancer: Balancer<Counters>,
    way: Way,
}

impl Routes {
    /// `sites` are those of the configuration's routes, by name. Must be called within the control runtime.
    pub(super) fn open(config: &TcpListener, rules: &Rules, sites: Vec<SiteInput>) -> Self {
        let routes = Self { kept: Mutex::default(), ways: watch::Sender::default() };
        routes.update(config, rules, sites, Instant::now());
        routes
    }

    /// Routes of the same name keep their backends' health and counts; what goes on at those that have gone goes on. Names count
    /// from now on, and backends `by` then at the latest: callers wait for both.
    pub(super) fn update(&self, config: &TcpListener, rules: &Rules, sites: Vec<SiteInput>, by: Instant) {
        let mut kept = self.kept();
        let mut before = mem::take(&mut *kept);
        let mut all = Vec::new();
        for site in sites {
            let name = site.name.clone();
            let one = match before.remove(&name) {
                Some(one) => {
                    one.balancer.update_by(rules.clone(), vec![site], by);
                    one
                }
                None => {
                    let balancer = Balancer::start(&config.name, rules.clone(), vec![site]);
                    let way = Way { route: balancer.route(), queue: Arc::default() };
                    Kept { balancer, way }
                }
            };
            all.push(one.way.clone());
            kept.insert(name, one);
        }
        let has_rest = !config.backends.is_empty();
        self.ways.send_replace(Arc::new(Ways { names: Names::of(&config.routes), all, has_rest }));
    }

    pub(super) fn ways(&self) -> watch::Receiver<Arc<Ways>> {
        self.ways.subscribe()
    }

    /// True once the backend sets of all routes have answered, and `rest`, if anybody waits for that.
    pub(super) fn answered(&self, rest: watch::Receiver<bool>) -> watch::Receiver<bool> {
        let mut all: Vec<_> = self.kept().values().map(|one| one.balancer.answered()).collect();
        if all.is_empty() {
            return rest;
        }
        all.extend(self.ways.borrow().has_rest.then_some(rest));
        let answered = all.iter().all(|one| *one.borrow());
        let (told, heard) = watch::channel(answered);
        if !answered {
            // Ends with who asks, or with the routes.
            tokio::spawn(async move {
                let waiting = async {
                    for one in &mut all {
                        if one.wait_for(|answered| *answered).await.is_err() {
                            return;
                        }
                    }
                    told.send_replace(true);
                };
                tokio::select! {
                    () = waiting => {}
                    () = told.closed() => {}
                }
            });
        }
        heard
    }

    fn kept(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
