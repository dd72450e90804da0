//! TCP and UDP listeners: accept -> pick a backend -> move bytes until both sides have ended. No byte is looked at twice, and
//! most are not looked at at all.
//!
//! An error on one side ends both, as it would without anybody between them; an end of one side's bytes ends the other's.

mod access;
mod families;
mod metrics;
mod per_backend;
mod tcp;
mod udp;

pub use access::Access;
pub(crate) use families::groups;
pub use metrics::Metrics;
pub use per_backend::ALL;
pub use tcp::{TcpListener, TcpParts};
pub use udp::{Metrics as UdpMetrics, UdpListener, UdpParts};
