//! TCP listeners: [`listener`] -> [`thread`] -> [`session`]: [`connect`] to a backend, then a [`flow`] each way.

mod cancel;
mod connect;
mod flow;
mod listener;
mod postgres;
mod queue;
mod session;
mod settings;
mod thread;

pub use listener::{TcpListener, TcpParts};
pub(super) use queue::Queue;
