//! One open UDP listener: a socket and a share for each thread, and the balancer behind them.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use crds::{config, units::Address};
use tokio::{
    sync::{mpsc, watch},
    task::spawn_local,
    time::timeout,
};

use super::{
    metrics::{Counters, ListenerMetrics, Metrics, ThreadCounters},
    room::Room,
    settings::Settings,
    sockets,
    thread::{Share, Thread},
};
use crate::{
    balance::{Balancer, Rules, SiteInput},
    l4::Access,
    net::{BindError, Phase, Workers, tls::Client},
};

/// A session counts as in use for this time after a datagram.
const IN_USE: Duration = Duration::from_secs(1);

/// What a listener is opened with beside its configuration.
#[derive(Clone)]
pub struct UdpParts {
    pub access: Option<Arc<Access>>,
    pub backends: SiteInput,
    /// Checks by HTTP go within it.
    pub check_tls: Option<Arc<Client>>,
}

/// What the threads have to cut their sessions off.
const CUT_OFF: Duration = Duration::from_secs(1);

/// An open listener. Dropping it closes it and all its sessions at once; [`UdpListener::drain`] lets them end.
pub struct UdpListener {
    name: Arc<str>,
    address: Address,
    phase: watch::Sender<Phase>,
    balancer: Balancer<Counters>,
    metrics: Arc<ListenerMetrics>,
    settings: watch::Sender<Settings>,
    access: Arc<ArcSwapOption<Access>>,
    /// Ends when all threads have no session left.
    done: mpsc::Receiver<()>,
}

impl UdpListener {
    /// Binds and starts to serve. Must be called within the control runtime, which also runs the checks.
    pub fn open(
        config: &config::UdpListener,
        parts: UdpParts,
        workers: &Workers,
        metrics: &Metrics,
    ) -> Result<Self, BindError> {
        let handles = workers.handles();
        let wanted = config.address.at(config.port);
        let (sockets, address) = sockets::bind(&wanted, handles.len()).map_err(|source| BindError {
            listener: config.name.clone(),
            address: wanted,
            source,
        })?;
        let address = Address::from(address);
        let balancer =
            Balancer::start(&config.name, Rules::of_udp(config, parts.check_tls), vec![parts.backends]);
        let room = Room::new(handles.len());
        let shown = Arc::new(ListenerMetrics {
            name: config.name.clone(),
            route: balancer.route(),
            threads: handles.iter().map(|_| Arc::<ThreadCounters>::default()).collect(),
            room: Arc::clone(&room),
        });
        metrics.add(&shown);
        let settings = watch::Sender::new(Settings::from(config));
        let access = Arc::new(ArcSwapOption::new(parts.access));
        let phase = watch::Sender::new(Phase::Serving);
        let name: Arc<str> = config.name.as_str().into();
        let (sender, done) = mpsc::channel(1);
        for (own, (worker, socket)) in handles.iter().zip(sockets).enumerate() {
            let share = Share {
                listener: Arc::clone(&name),
                own,
                socket,
                route: balancer.route(),
                settings: settings.subscribe(),
                access: Arc::clone(&access),
                counters: Arc::clone(&shown.threads[own]),
                room: Arc::clone(&room),
                descriptors: workers.descriptors(),
                phase: phase.subscribe(),
                done: sender.clone(),
            };
            worker.run(move || drop(spawn_local(Thread::run(share))));
        }
        tracing::info!(listener = %name, %address, "listening for datagrams");
        Ok(Self { name, address, phase, balancer, metrics: shown, settings, access, done })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Other backends, rules, settings or access log; name, address and port stay, and so do the sessions whose backend does.
    pub fn update(&self, config: &config::UdpListener, parts: UdpParts) {
        self.access.store(parts.access);
        self.settings.send_replace(config.into());
        self.balancer.update(Rules::of_udp(config, parts.check_tls), vec![parts.backends]);
    }

    /// True once the backend set has answered.
    pub fn answered(&self) -> watch::Receiver<bool> {
        self.balancer.answered()
    }

    /// Sessions that are kept now.
    pub fn sessions(&self) -> usize {
        self.metrics.room.sessions()
    }

    /// Sessions that are kept now, if a datagram came or went lately: nobody tells that a session is over.
    pub fn sessions_in_use(&self) -> usize {
        if self.metrics.room.is_busy(IN_USE) { self.sessions() } else { 0 }
    }

    /// Takes no new sessions and waits for those that there are to fall silent; what is left after `limit` is cut off.
    pub async fn drain(mut self, limit: Duration) {
        self.phase.send_replace(Phase::Draining);
        // Nothing is ever sent: this is the end of all senders.
        if timeout(limit, self.done.recv()).await.is_err() {
            let (listener, sessions) = (&self.name, self.sessions());
            tracing::info!(%listener, sessions, "sessions are cut off");
            // The threads write the last lines of the access log, and may be ended after this.
            drop(self.phase);
            if timeout(CUT_OFF, self.done.recv()).await.is_err() {
                tracing::warn!(%listener, "a thread did not close its sessions in time");
            }
        }
        tracing::info!(listener = %self.name, address = %self.address, "closed");
    }
}
