//! TLS: settings -> files -> certificates and keys -> rustls configurations, which connections take as they are opened.
//!
//! A [`Server`] is a listener's side and a [`Client`] a site's; each follows its files. New content serves new connections
//! once it is good, and a connection keeps what it was opened with. By rustls alone, with ring.

mod client;
mod current;
mod error;
mod explain;
mod hello;
mod identity;
mod material;
mod self_signed;
mod server;
mod store;
mod trust;
mod version;

use std::sync::{Arc, LazyLock};

pub use client::{Beginning, Client, Peer};
pub use error::TlsError;
pub use hello::Hello;
pub use identity::Identity;
use rustls::crypto::CryptoProvider;
pub use server::Server;
pub(crate) use store::FAMILIES;
pub use store::Store;

/// The one provider of cryptography.
static PROVIDER: LazyLock<Arc<CryptoProvider>> =
    LazyLock::new(|| Arc::new(rustls::crypto::ring::default_provider()));
