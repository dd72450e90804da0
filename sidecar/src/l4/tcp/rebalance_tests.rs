//! Moves of connections, with threads that the tests play.

use std::{cell::RefCell, net::SocketAddr, rc::Rc};

use crds::config::{TcpListener, UdpListener};
use serde_json::{Value, json};
use slab::Slab;

use super::*;
use crate::{
    balance::{BackendSet, Balancer, Busy, Endpoint, Rules, SiteInput},
    l4::metrics::Cause,
};

/// A listener with as many threads as are played, and connections that are as idle as they are said to be.
struct Stage {
    sets: watch::Sender<Arc<BackendSet>>,
    balancer: Balancer<Counters>,
    threads: Vec<RefCell<Slab<Open>>>,
    closed: RefCell<Vec<Closed>>,
}

struct Open {
    going: Rc<Going>,
    busy: Busy<Counters>,
}

#[derive(Debug, Clone, Copy)]
struct Closed {
    at: Instant,
    backend: SocketAddr,
    used: Instant,
}

fn address(number: u8) -> SocketAddr {
    ([10, 0, 0, number], 5432).into()
}

fn set(numbers: &[u8]) -> Arc<BackendSet> {
    let endpoints = numbers.iter().map(|number| Endpoint::at(address(*number))).collect();
    Arc::new(BackendSet { endpoints, unavailable: Vec::new(), answered: true })
}

impl Stage {
    async fn new(backends: &[u8]) -> Self {
        // What has no checks is up.
        let rules: UdpListener =
            serde_json::from_value(json!({"name": "a", "port": 1, "backends": []})).unwrap();
        let sets = watch::Sender::new(set(backends));
        let site = SiteInput { name: "all".into(), backends: sets.subscribe(), tls: None, protocol: None };
        let balancer = Balancer::start("a", Rules::of_udp(&rules, None), vec![site]);
        let stage = Self {
            sets,
            balancer,
            threads: vec![RefCell::default(), RefCell::default()],
            closed: RefCell::default(),
        };
        stage.has(backends.len()).await;
        stage
    }

    async fn has(&self, backends: usize) {
        self.balancer.route().wait_for(|route| route.backends.len() == backends).await.unwrap();
    }

    /// Opens a connection that was last used so many seconds ago.
    fn open(&self, thread: usize, number: u8, idle: u64) -> Rc<Going> {
        let route = self.balancer.route().borrow().clone();
        let place = route.backends.iter().position(|backend| backend.address.ip() == Some(address(number)));
        let busy = route.occupy(place.unwrap()).unwrap();
        let going = Rc::new(Going::at(busy.backend().id));
        going.used.set(Instant::now() - Duration::from_secs(idle));
        self.threads[thread].borrow_mut().insert(Open { going: Rc::clone(&going), busy });
        going
    }

    /// Runs for so long. Each connection that is closed comes back to `again`.
    async fn run(&self, rebalance: Value, time: Duration, again: Option<u8>) {
        let config: TcpListener =
            serde_json::from_value(json!({"name": "a", "port": 1, "backends": [], "rebalance": rebalance}))
                .unwrap();
        let (senders, receivers): (Vec<_>, Vec<_>) =
            self.threads.iter().map(|_| mpsc::channel(ORDERS)).unzip();
        let rebalancer = Rebalancer {
            route: self.balancer.route(),
            settings: Arc::new(ArcSwap::from_pointee(Settings::new(&config, None, None))),
            threads: senders,
        };
        let playing =
            receivers.into_iter().enumerate().map(|(thread, orders)| self.play(thread, orders, again));
        tokio::select! {
            () = rebalancer.run() => {}
            _ = futures::future::join_all(playing) => {}
            () = tokio::time::sleep(time) => {}
        }
    }

    async fn play(&self, thread: usize, mut orders: mpsc::Receiver<Order>, again: Option<u8>) {
        while let Some(order) = orders.recv().await {
            match order {
                Order::Survey { from, quiet, reply } => {
                    let open = self.threads[thread].borrow();
                    reply
                        .send(survey(open.iter().map(|(key, open)| (key, &*open.going)), &from, quiet))
                        .unwrap();
                }
                Order::Close { keys, .. } => {
                    for key in keys {
                        let Open { going, busy } = self.threads[thread].borrow_mut().remove(key);
                        going.end(Cause::Rebalanced);
                        let backend = busy.backend().address.ip().unwrap();
                        let closed = Closed { at: Instant::now(), backend, used: going.used.get() };
                        self.closed.borrow_mut().push(closed);
                        drop(busy);
                        if let Some(number) = again {
                            self.open(thread, number, 0);
                        }
                    }
                }
            }
        }
    }

    fn closed_at(&self, number: u8) -> usize {
        self.closed.borrow().iter().filter(|closed| closed.backend == address(number)).count()
    }
}

/// Runs a move: the third backend joins two that have ten connections each, all of them idle for an hour and more.
async fn third_joins(rebalance: Value, again: Option<u8>) -> Stage {
    let stage = Stage::new(&[1, 2]).await;
    for count in 0..20 {
        stage.open(count % 2, 1 + (count / 2 % 2) as u8, 3600 + count as u64);
    }
    let join = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        stage.sets.send_replace(set(&[1, 2, 3]));
        pending::<()>().await;
    };
    tokio::select! {
        () = stage.run(rebalance, Duration::from_secs(60), again) => {}
        () = join => {}
    }
    stage
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_joins_gets_its_share_from_all_the_others_idlest_first() {
    let stage = third_joins(json!({"connectionsPerSecond": 100}), Some(3)).await;
    assert_eq!((stage.closed_at(1), stage.closed_at(2)), (3, 3));
    // Of the connections of each, those that were opened last were said to be idle for the longest time.
    let mut used: Vec<Instant> = stage.closed.borrow().iter().map(|closed| closed.used).collect();
    used.sort_unstable();
    let idlest = [19, 18, 17, 16, 15, 13];
    let after: Vec<u64> = used.iter().map(|one| 19 - (*one - used[0]).as_secs()).collect();
    assert_eq!(after, idlest);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_closed_in_a_second_than_may_be() {
    for per_second in [1, 2, 3, 25] {
        let stage = third_joins(json!({"connectionsPerSecond": per_second}), Some(3)).await;
        let closed = stage.closed.borrow();
        assert_eq!(closed.len(), 6, "{per_second}");
        for first in closed.iter() {
            let within =
                |closed: &&Closed| closed.at >= first.at && closed.at - first.at < Duration::from_millis(999);
            assert!(closed.iter().filter(within).count() <= per_second, "{per_second}: {closed:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn clients_that_stay_away_cost_no_more_than_was_due() {
    assert_eq!(third_joins(json!({}), None).await.closed.borrow().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_moved_unless_that_is_wanted() {
    assert_eq!(third_joins(Value::Null, Some(3)).await.closed.borrow().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_used_or_waits_for_an_answer_is_left_alone() {
    let stage = Stage::new(&[1]).await;
    let waiting = stage.open(0, 1, 3600);
    waiting.waits.set(true);
    let used = stage.open(1, 1, 0);
    let idle = [stage.open(0, 1, 3600), stage.open(1, 1, 3600)];
    let use_it = async {
        stage.sets.send_replace(set(&[1, 2]));
        loop {
            used.used.set(Instant::now());
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::select! {
        () = stage.run(json!({"connectionsPerSecond": 100}), Duration::from_secs(60), None) => {}
        () = use_it => {}
    }
    assert_eq!(stage.closed.borrow().len(), 2);
    for (going, ended) in [(&waiting, false), (&used, false), (&idle[0], true), (&idle[1], true)] {
        assert_eq!(futures::FutureExt::now_or_never(going.told()).is_some(), ended);
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_is_back_gets_its_share_again() {
    let stage = Stage::new(&[1, 2]).await;
    (0..8).for_each(|count| drop(stage.open(count % 2, 1, 3600)));
    let returns = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        for backends in [&[1][..], &[1, 2]] {
            stage.sets.send_replace(set(backends));
            stage.has(backends.len()).await;
        }
        pending::<()>().await;
    };
    tokio::select! {
        () = stage.run(json!({}), Duration::from_secs(60), Some(2)) => {}
        () = returns => {}
    }
    assert_eq!(stage.closed_at(1), 4);
}
