//! What a server gives each client so that it can cancel its query over another connection.

use std::fmt;

use super::CANCEL_REQUEST;

/// The longest secret of version 3.2 of the protocol; before it, all had four bytes.
pub const LONGEST_SECRET: usize = 256;

/// Whoever knows it can cancel queries of the connection: it is never shown.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    process: u32,
    secret: Box<[u8]>,
}

impl CancelKey {
    /// Parses what stands behind the head of a CancelRequest and of BackendKeyData: a process, and its secret.
    pub fn read(body: &[u8]) -> Option<Self> {
        let (process, secret) = body.split_first_chunk()?;
        (1..=LONGEST_SECRET)
            .contains(&secret.len())
            .then(|| Self { process: u32::from_be_bytes(*process), secret: secret.into() })
    }

    /// The CancelRequest that names it.
    pub fn request(&self) -> Vec<u8> {
        // At most 268 bytes.
        let length = (12 + self.secret.len()) as u32;
        [&length.to_be_bytes(), &CANCEL_REQUEST.to_be_bytes(), &self.process.to_be_bytes(), &*self.secret]
            .concat()
    }
}

impl fmt::Debug for CancelKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CancelKey").finish_non_exhaustive()
    }
}
