//! Sockets and threads: listen -> accept -> the worker with the fewest connections. Knows no protocol.

mod accept;
mod alarm;
mod alpn;
pub mod buffer;
mod dead_hosts;
mod front;
mod limits;
mod listen;
mod own_address;
pub mod pipe;
pub mod postgres;
pub mod proxy_protocol;
mod stream;
mod system;
pub mod tls;
mod unix;
mod workers;

pub use accept::{Accepted, Acceptor, Slot};
pub use alarm::Alarm;
pub use alpn::{Spoken, offered, spoken};
pub use dead_hosts::DeadHosts;
pub use front::{BindError, Front, Lane, Phase};
pub use limits::{Descriptor, Descriptors, raise as raise_descriptor_limit};
pub use listen::{Listening, Target, bind, connect};
pub use own_address::own_address;
pub use stream::{Socket, Stream};
pub use system::datagrams;
pub(crate) use system::options;
pub use workers::{Worker, Workers};
