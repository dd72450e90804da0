//! One open listener.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use crds::config::HttpListener;
use tokio::sync::watch;

use super::Metrics;
use crate::{balance::BackendSet, net::{Workers, bind}};

/// A site and where its backend sets come from, in failover order.
#[derive(Clone)]
pub struct SiteInput {
    pub name: String,
    pub backends: watch::Receiver<Arc<BackendSet>>,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("listener {listener} cannot listen on {address}: {source}; choose another port, or stop what uses it")]
    Bind { listener: String, address: SocketAddr, source: io::Error },
}

/// An open listener. Dropping it closes it and all its connections at once; [`Listener::drain`] lets requests finish.
pub struct Listener {
    name: String,
    address: SocketAddr,
    answered: watch::Receiver<bool>,
}

impl Listener {
    /// Binds and starts to serve. Must be called within the control runtime, which also runs the checks.
    pub fn open(
        config: &HttpListener,
        _sites: Vec<SiteInput>,
        _workers: &Workers,
        _metrics: Arc<Metrics>,
    ) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Bind {
            listener: config.name.clone(),
            address: config.socket_address(),
            source,
        };
        let socket = bind(config.socket_address()).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        let (_, answered) = watch::channel(false);
        Ok(Self { name: config.name.clone(), address, answered })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address that it listens on; the port is the real one where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Other sites or checks from now on; name, address and port stay. Backends that stay keep their health and counters.
    pub fn update(&self, _config: &HttpListener, _sites: Vec<SiteInput>) {}

    /// True once each backend set has answered.
    pub fn answered(&self) -> watch::Receiver<bool> {
        self.answered.clone()
    }

    /// Requests being served now.
    pub fn requests(&self) -> usize {
        0
    }

    /// Connections open now, with a request or without.
    pub fn connections(&self) -> usize {
        0
    }

    /// No connection is open.
    pub fn idle(&self) -> bool {
        self.connections() == 0
    }

    /// Stops accepting, lets requests finish and closes connections; what is left after `timeout` is cut off.
    pub async fn drain(self, _timeout: Duration) {}
}
