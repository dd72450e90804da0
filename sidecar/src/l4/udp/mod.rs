//! UDP listeners: [`listener`] -> a [`thread`] each, with a [`table`] of [`session`]s, from one [`room`] for all -> [`send`].
//!
//! A client's session has one backend until nothing has come or gone for a while. Answers go back without limit, from the
//! address that the client wrote to.

mod families;
mod listener;
mod metrics;
mod room;
mod send;
mod session;
mod settings;
mod sockets;
mod table;
mod thread;

pub(super) use families::group;
pub use listener::{UdpListener, UdpParts};
pub use metrics::Metrics;
