//! HTTP/1.1 messages as they stand on the wire: bytes -> head -> framing -> bytes. Pure: nothing here waits or writes.
//!
//! What is passed on keeps its bytes, its order and its framing; only what belongs to one connection is left out. A message
//! that two readers could read in two ways is refused.

mod chunks;
mod fields;
mod framing;
#[cfg(any(test, fuzzing))]
pub(super) mod oracle;
mod request;
mod response;
#[cfg(test)]
mod tests;

pub(super) use chunks::{BadChunks, Chunks, Part};
pub(super) use fields::Fields;
pub(super) use framing::Framing;
pub(super) use request::{BadRequest, Edits, Method, RequestHead};
#[cfg(test)]
use response::BadResponse;
pub(super) use response::ResponseHead;

/// Longest head, in bytes: beyond it is an answer of 431, or a bad gateway.
pub(super) const MAX_HEAD: usize = 64 * 1024;

/// Most header fields of a head.
const MAX_FIELDS: usize = 128;

/// HTTP's version, as far as it matters: 1.0 knows no chunks and closes unless told otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Version {
    Http10,
    #[default]
    Http11,
}

impl Version {
    fn of(minor: Option<u8>) -> Self {
        if minor == Some(0) { Self::Http10 } else { Self::Http11 }
    }
}
