//! The first words of a connection of PostgreSQL, as far as who forwards it has to know them: what a client asks for, by which
//! key it may cancel its query, and how a server is asked for TLS. Everything behind them is nobody's business here.
//!
//! Source: <https://www.postgresql.org/docs/current/protocol-message-formats.html>.

mod answers;
mod ask;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod key;
mod offer;
mod opening;
mod refusal;

pub use answers::Answers;
pub(super) use ask::ask_for_tls;
pub use ask::request_tls;
pub use key::{CancelKey, LONGEST_SECRET};
pub use offer::{LONGEST_OFFER, Offer};
pub use opening::{BadOpening, HEAD, LONGEST_START, Opening};
pub use refusal::refusal;

/// The protocol's name within TLS (ALPN). PostgreSQL 17 asks for it where TLS begins with the first byte.
pub const ALPN: &[&[u8]] = &[b"postgresql"];

/// Answers to SSLRequest.
pub const YES: u8 = b'S';
pub const NO: u8 = b'N';

/// What a client, or we, ask with; each in place of a version of the protocol.
const CANCEL_REQUEST: u32 = 80_877_102;
const SSL_REQUEST: u32 = 80_877_103;
const GSS_REQUEST: u32 = 80_877_104;
