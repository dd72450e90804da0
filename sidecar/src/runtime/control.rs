//! The control loop: reading -> judge -> check -> apply -> keep. A reading that fails on the way changes nothing.

use std::{collections::HashMap, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{self, Instant},
};
use tokio_util::sync::CancellationToken;

use super::{Health, Mode, Status, drain, listener, listeners::Listeners, signals::Signals};
use crate::{
    config::{
        Checked, Problem, load,
        source::{
            Document, Origin, Reading,
            choice::{Verdict, Version, judge},
        },
    },
    discovery::{Discovery, state::StateDir, state_keys},
    http,
    net::{Workers, tls},
    telemetry::metrics,
};

/// The sidecar counts as started when every backend set has answered, or this time after its listeners were opened.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A listener whose address is taken is tried again after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// Problems of one configuration that are logged; `sidecar check` prints all.
const MAX_LOGGED: usize = 20;

pub(super) struct Control {
    admin: SocketAddr,
    workers: Workers,
    listeners: Listeners,
    metrics: metrics::Control,
    discovery: Discovery,
    state: Arc<StateDir>,
    health: Arc<Health>,
    /// The configuration in use.
    current: Option<(Version, Checked)>,
    /// Content that was refused last, by who gave it: the same is not reported twice.
    refused: HashMap<Origin, u64>,
    /// What is awaited, by who should give it, until there is a configuration.
    awaited: HashMap<Origin, String>,
    last_good_offered: bool,
    /// A good configuration whose listeners could not be opened, and when to try again.
    blocked: Option<Blocked>,
    answers_until: Option<Instant>,
    /// Told where the admin endpoints are, once.
    serving: Option<oneshot::Sender<SocketAddr>>,
    /// Why a configuration that was given, and that nobody will correct, cannot be used.
    hopeless: Option<String>,
}

struct Blocked {
    origin: Origin,
    document: Document,
    retry_at: Instant,
}

impl Control {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        admin: SocketAddr,
        workers: Workers,
        listener_metrics: listener::Metrics,
        tls: tls::Store,
        means: http::Means,
        metrics: metrics::Control,
        discovery: Discovery,
        state: Arc<StateDir>,
        health: Arc<Health>,
        serving: Option<oneshot::Sender<SocketAddr>>,
    ) -> Self {
        Self {
            admin,
            workers,
            listeners: Listeners::new(listener_metrics, tls, means),
            metrics,
            discovery,
            state,
            health,
            current: None,
            refused: HashMap::new(),
            awaited: HashMap::new(),
            last_good_offered: false,
            blocked: None,
            answers_until: None,
            serving,
            hopeless: None,
        }
    }

    /// Takes readings until a signal comes, and gives the signal's name; or until there is no hope to serve, and says why. On
    /// the word to leave it goes on, and clients are sent away.
    pub(super) async fn run(
        &mut self,
        readings: &mut mpsc::Receiver<Reading>,
        signals: &mut Signals,
        leave: &CancellationToken,
    ) -> Result<&'static str, String> {
        let mut beats = time::interval(Health::BEAT);
        let mut leaving = false;
        loop {
            tokio::select! {
                signal = signals.next() => return Ok(signal),
                _ = beats.tick() => {
                    self.health.beat();
                    self.retry_blocked().await;
                }
                Some(reading) = readings.recv() => self.take(reading).await,
                () = leave.cancelled(), if !leaving => {
                    leaving = true;
                    tracing::info!("the pod is about to end: clients from elsewhere are sent away");
                    self.listeners.leave();
                }
                () = self.answers(), if self.answers_until.is_some() => self.started(),
            }
            if let Some(reason) = self.hopeless.take() {
                return Err(reason);
            }
        }
    }

    /// Ends all listeners; see [`Mode`] for when they stop accepting.
    pub(super) async fn drain(self, mode: Mode) {
        self.health.set(Status::Draining);
        let timeout = self.current.map_or(Duration::ZERO, |(_, config)| config.drain_timeout());
        drain::drain(self.listeners, self.workers, mode, timeout).await;
    }

    async fn take(&mut self, reading: Reading) {
        let from_file = match reading {
            Reading::Found { origin, document } => {
                self.awaited.remove(&origin);
                self.offer(origin, &document).await;
                origin == Origin::File
            }
            Reading::Missing { origin, awaited } => {
                self.missing(origin, awaited);
                origin == Origin::File
            }
        };
        if from_file && !self.last_good_offered {
            self.last_good_offered = true;
            if let Some(bytes) = self.state.load_config() {
                let name = "what an earlier run kept".to_owned();
                self.offer(Origin::LastGood, &Document { name, bytes }).await;
            }
        }
    }

    fn missing(&mut self, origin: Origin, awaited: String) {
        if self.current.is_some() {
            tracing::warn!(source = origin.as_str(), missing = awaited, "the configuration in use is kept");
        } else if self.awaited.get(&origin) != Some(&awaited) {
            tracing::info!(source = origin.as_str(), awaited, "waiting for a configuration");
            self.awaited.insert(origin, awaited);
            let waiting = self.awaited.values().map(|awaited| format!("no configuration: {awaited}"));
            self.health.set(Status::Starting(waiting.collect()));
        }
    }

    async fn offer(&mut self, origin: Origin, document: &Document) {
        let fingerprint = document.fingerprint();
        // What waited for its address is out of date now.
        self.blocked.take_if(|blocked| blocked.origin == origin);
        if let Some((current, _)) = &mut self.current
            && current.fingerprint == fingerprint
        {
            // Now the API has confirmed it: an older file no longer replaces it.
            if origin == Origin::Api {
                current.origin = origin;
            }
            self.refused.remove(&origin);
            return self.metrics.accepted(None);
        }
        let loaded = match load(&document.bytes, self.admin) {
            Ok(loaded) => loaded,
            Err(rejected) => {
                return self.refuse(origin, document, &rejected.problems);
            }
        };
        let version = Version { origin, policy: loaded.config.policy().cloned(), fingerprint };
        let in_use = self.current.as_ref().map(|(version, _)| version);
        if judge(in_use, &version) != Verdict::Use {
            return tracing::debug!(
                source = origin.as_str(),
                name = document.name,
                "an older configuration is left"
            );
        }
        if let Err(error) = self.listeners.apply(&loaded.config, &mut self.discovery, &self.workers).await {
            let problem = Problem {
                line: None,
                path: String::new(),
                message: error.to_string(),
                remedy: "the listeners stay as they were".to_owned(),
            };
            let retry_at = Instant::now() + RETRY_INTERVAL;
            self.blocked = Some(Blocked { origin, document: document.clone(), retry_at });
            return self.refuse(origin, document, &[problem]);
        }
        for warning in loaded.warnings.iter().take(MAX_LOGGED) {
            tracing::warn!(source = origin.as_str(), name = document.name, "{warning}");
        }
        self.accept(version, loaded.config, document);
    }

    fn accept(&mut self, version: Version, config: Checked, document: &Document) {
        let generation = config.policy().map(|policy| policy.generation);
        tracing::info!(
            source = version.origin.as_str(),
            name = document.name,
            generation,
            listeners = config.listeners().len(),
            "configuration in use"
        );
        if version.origin != Origin::LastGood {
            self.state.save_config(&document.bytes);
            self.state.prune(&state_keys(config.sources()));
        }
        self.metrics.accepted(generation);
        self.refused.clear();
        self.awaited.clear();
        self.blocked = None;
        self.current = Some((version, config));
        if let Some(serving) = self.serving.take() {
            // Who asked may have gone.
            let _ = serving.send(self.admin);
        }
        if !self.health.is_started() {
            let limit = Instant::now() + ANSWER_TIMEOUT;
            self.answers_until.get_or_insert(limit);
            let waiting = self.listeners.unanswered().into_iter();
            let waiting =
                waiting.map(|name| format!("listener {name}: not all of its backends are known yet"));
            self.health.set(Status::Starting(waiting.collect()));
        }
    }

    /// What took the address may have gone.
    async fn retry_blocked(&mut self) {
        if let Some(Blocked { origin, document, .. }) =
            self.blocked.take_if(|blocked| Instant::now() >= blocked.retry_at)
        {
            self.offer(origin, &document).await;
        }
    }

    fn refuse(&mut self, origin: Origin, document: &Document, problems: &[Problem]) {
        if self.refused.insert(origin, document.fingerprint()) == Some(document.fingerprint()) {
            return tracing::debug!(name = document.name, "configuration refused again");
        }
        self.metrics.refused();
        if origin == Origin::Given {
            let reasons: Vec<&str> = problems.iter().map(|problem| problem.message.as_str()).collect();
            self.hopeless = Some(reasons.join("; "));
            return;
        }
        let kept =
            if self.current.is_some() { "the configuration in use is kept" } else { "there is none yet" };
        tracing::error!(
            source = origin.as_str(),
            name = document.name,
            problems = problems.len(),
            "configuration refused, {kept}"
        );
        for problem in problems.iter().take(MAX_LOGGED) {
            tracing::error!(name = document.name, "{problem}");
        }
        if self.current.is_none() {
            let refused =
                problems.iter().take(MAX_LOGGED).map(|problem| format!("{}: {problem}", document.name));
            self.health.set(Status::Starting(refused.collect()));
        }
    }

    /// Waits until every backend set has answered, or it has taken too long.
    async fn answers(&self) {
        let answered = self.listeners.answered();
        if let Some(limit) = self.answers_until
            && time::timeout_at(limit, answered).await.is_err()
        {
            tracing::warn!(listeners = ?self.listeners.unanswered(), "started, though not all backends are known yet");
        }
    }

    fn started(&mut self) {
        self.answers_until = None;
        self.health.set(Status::Started);
        self.metrics.started();
        tracing::info!("ready");
    }
}
