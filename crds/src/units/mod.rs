//! Values with a unit. Each is parsed once, from the text that users write, and is valid ever after; each brings the
//! schema pattern that refuses at `kubectl apply` what its parser would refuse.

mod address;
mod addresses;
mod byte_size;
mod duration;
mod hex;
mod host;
mod listen;
mod quantity;
mod server_name;
mod status;
mod text_or_number;
mod url;

pub use address::{Address, MAX_SOCKET_PATH};
pub use addresses::{AddressPattern, MAX_ADDRESSES};
pub use byte_size::ByteSize;
pub use duration::Duration;
pub use hex::HexBytes;
pub use host::DnsName;
pub use listen::ListenAddress;
pub use quantity::Quantity;
pub use server_name::ServerNamePattern;
pub use status::StatusRange;
pub use url::HttpUrl;

/// Why a text is not a value of its unit. The message names the text and says what would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(pub(crate) String);
