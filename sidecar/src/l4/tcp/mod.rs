//! TCP listeners: [`listener`] -> [`thread`] -> [`client`]: [`connect`] to a backend, then a [`session`] of a [`flow`]
//! each way.
//! [`rebalance`] has some of them end when backends join.

mod cancel;
mod client;
mod connect;
mod entry;
mod flow;
mod going;
mod listener;
mod names;
mod postgres;
mod queue;
mod rebalance;
mod routes;
mod session;
mod settings;
mod shares;
mod silence;
mod thread;

pub use listener::{TcpListener, TcpParts};
pub(super) use queue::Queue;
pub(super) use routes::Ways;
