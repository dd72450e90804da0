//! One open listener, whatever it speaks.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::parts::Prepared;
use crate::{
    http, l4,
    net::{BindError, Workers},
};

pub(super) enum Listener {
    Http(http::Listener),
    Tcp(l4::TcpListener),
    Udp(l4::UdpListener),
}

/// Where listeners count.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) http: Arc<http::Metrics>,
    pub(super) l4: Arc<l4::Metrics>,
    pub(super) udp: Arc<l4::UdpMetrics>,
}

impl Listener {
    pub(super) fn open(prepared: &Prepared, workers: &Workers, metrics: &Metrics) -> Result<Self, BindError> {
        match prepared {
            Prepared::Http(config, parts) => {
                let metrics = Arc::clone(&metrics.http);
                http::Listener::open(config, parts.clone(), workers, metrics).map(Self::Http)
            }
            Prepared::Tcp(config, parts) => {
                l4::TcpListener::open(config, parts.clone(), workers, &metrics.l4).map(Self::Tcp)
            }
            Prepared::Udp(config, parts) => {
                l4::UdpListener::open(config, parts.clone(), workers, &metrics.udp).map(Self::Udp)
            }
        }
    }

    /// Other settings for what is to come. Only a listener of the same kind changes in place.
    pub(super) fn update(&self, prepared: &Prepared) {
        match (self, prepared) {
            (Self::Http(listener), Prepared::Http(config, parts)) => listener.update(config, parts.clone()),
            (Self::Tcp(listener), Prepared::Tcp(config, parts)) => listener.update(config, parts.clone()),
            (Self::Udp(listener), Prepared::Udp(config, parts)) => listener.update(config, parts.clone()),
            _ => tracing::error!("a listener cannot become one of another kind"),
        }
    }

    /// True once each backend set has answered.
    pub(super) fn answered(&self) -> watch::Receiver<bool> {
        match self {
            Self::Http(listener) => listener.answered(),
            Self::Tcp(listener) => listener.answered(),
            Self::Udp(listener) => listener.answered(),
        }
    }

    /// Connections open now, and sessions while they are in use.
    pub(super) fn connections(&self) -> usize {
        match self {
            Self::Http(listener) => listener.connections(),
            Self::Tcp(listener) => listener.connections(),
            Self::Udp(listener) => listener.sessions_in_use(),
        }
    }

    /// Sends clients away as they are answered, if they come from elsewhere: those on the loopback have nowhere else to go, and
    /// what a TCP connection waits for nobody knows.
    pub(super) fn leave(&self) {
        if let Self::Http(listener) = self
            && listener.address().ip().is_some_and(|address| !address.ip().is_loopback())
        {
            listener.leave();
        }
    }

    /// How long it may drain where another one waits for its address. Sessions keep it, as connections do not.
    pub(super) fn time_to_make_way(&self, limit: Duration) -> Duration {
        match self {
            Self::Http(_) | Self::Tcp(_) => limit,
            Self::Udp(_) => Duration::ZERO,
        }
    }

    /// Stops accepting and lets what is under way come to its end; what is left after `limit` is cut off.
    pub(super) async fn drain(self, limit: Duration) {
        match self {
            Self::Http(listener) => listener.drain(limit).await,
            Self::Tcp(listener) => listener.drain(limit).await,
            Self::Udp(listener) => listener.drain(limit).await,
        }
    }
}
