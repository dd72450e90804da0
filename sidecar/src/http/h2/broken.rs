//! What an error of HTTP/2 means for the request that met it.

use std::io;

/// The backend has not seen the request, or will not: it may go to any other, even if it must not be sent twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::http) enum Unsent {
    #[error("refused the stream")]
    Refused,
    #[error("closed the connection")]
    GoingAway,
    /// No backend can be asked so.
    #[error("the request cannot be written in HTTP/2")]
    Unfit,
}

impl Unsent {
    /// What an error of a wire says of its request; none where it may have been seen.
    pub(in crate::http) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl From<Unsent> for io::Error {
    fn from(unsent: Unsent) -> Self {
        Self::other(unsent)
    }
}

/// An error of a stream in the terms of a connection.
pub(super) fn describe(error: h2::Error) -> io::Error {
    if error.is_go_away() && error.is_remote() {
        return Unsent::GoingAway.into();
    }
    match error.reason() {
        Some(h2::Reason::REFUSED_STREAM) if error.is_remote() => Unsent::Refused.into(),
        Some(reason) if error.is_reset() && error.is_remote() => {
            io::Error::other(format!("reset the stream: {}", reason.description()))
        }
        Some(reason) => io::Error::other(format!("broke the rules of HTTP/2: {}", reason.description())),
        None => error.into_io().unwrap_or_else(|| io::ErrorKind::ConnectionAborted.into()),
    }
}
