//! Where a body ends.

use super::{
    Version,
    fields::{Codings, Lengths, Summary},
};

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::http) enum Framing {
    /// There is none.
    #[default]
    None,
    /// So many bytes, at least one.
    Length(u64),
    /// In chunks.
    Chunked,
    /// With the connection: of responses alone.
    UntilClose,
}

/// The fields contradict each other, or themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ambiguous {
    Length,
    Coding,
    Both,
}

impl Framing {
    fn length(length: u64) -> Self {
        if length == 0 { Self::None } else { Self::Length(length) }
    }

    /// Of a request. Whatever two servers could read in two ways is refused.
    pub(super) fn of_request(version: Version, summary: &Summary) -> Result<Self, Ambiguous> {
        match (summary.codings, summary.lengths) {
            (Codings::None, Lengths::None) => Ok(Self::None),
            (Codings::None, Lengths::One(length)) => Ok(Self::length(length)),
            (Codings::None, Lengths::Repeated(_) | Lengths::Bad) => Err(Ambiguous::Length),
            (Codings::Chunked, Lengths::None) if version == Version::Http11 => Ok(Self::Chunked),
            (Codings::Chunked, Lengths::None) | (Codings::Other, _) => Err(Ambiguous::Coding),
            (Codings::Chunked, _) => Err(Ambiguous::Both),
        }
    }

    /// Of a response that may have a body. Chunks win over a length.
    pub(super) fn of_response(version: Version, summary: &Summary) -> Result<Self, Ambiguous> {
        match (summary.codings, summary.lengths) {
            (Codings::Chunked, _) if version == Version::Http11 => Ok(Self::Chunked),
            (Codings::Chunked | Codings::Other, _) => Err(Ambiguous::Coding),
            (Codings::None, Lengths::None) => Ok(Self::UntilClose),
            (Codings::None, Lengths::One(length) | Lengths::Repeated(length)) => Ok(Self::length(length)),
            (Codings::None, Lengths::Bad) => Err(Ambiguous::Length),
        }
    }
}
