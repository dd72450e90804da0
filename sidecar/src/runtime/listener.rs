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
}

/// Where listeners count.
#[derive(Clone)]
pub(super) struct Metrics {
    pub(super) http: Arc<http::Metrics>,
    pub(super) l4: Arc<l4::Metrics>,
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
        }
    }

    /// Other settings for what is to come. Only a listener of the same kind changes in place.
    pub(super) fn update(&self, prepared: &Prepared) {
        match (self, prepared) {
            (Self::Http(listener), Prepared::Http(config, parts)) => listener.update(config, parts.clone()),
            (Self::Tcp(listener), Prepared::Tcp(config, parts)) => listener.update(config, parts.clone()),
            _ => tracing::error!("a listener cannot become one of another kind"),
        }
    }

    /// True once each backend set has answered.
    pub(super) fn answered(&self) -> watch::Receiver<bool> {
        match self {
            Self::Http(listener) => listener.answered(),
            Self::Tcp(listener) => listener.answered(),
        }
    }

    /// Connections open now.
    pub(super) fn connections(&self) -> usize {
        match self {
            Self::Http(listener) => listener.connections(),
            Self::Tcp(listener) => listener.connections(),
        }
    }

    /// Stops accepting and lets what is under way come to its end; what is left after `limit` is cut off.
    pub(super) async fn drain(self, limit: Duration) {
        match self {
            Self::Http(listener) => listener.drain(limit).await,
            Self::Tcp(listener) => listener.drain(limit).await,
        }
    }
}
